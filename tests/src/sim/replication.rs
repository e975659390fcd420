//! Postgres at work: starts, promotions, ends, what flows from walsenders to walreceivers, and clients
//! that write wherever somebody accepts it.

use super::Sim;
use super::event::Event;
use super::history::Fact;
use super::mutation::Mutation;
use super::postgres::{Postgres, Receiver, Run, Sender, TIMEOUT_MS, Waiting};
use super::queue::At;

/// Between two messages of a walsender that has nothing to send.
const FEED_MS: u64 = 100;
/// wal_retrieve_retry_interval.
const RECEIVE_MS: u64 = 100;

impl Sim {
    /// False: something of it still runs, or there is no data.
    pub fn start(&mut self, node: usize, writable: bool) -> bool {
        let host = &mut self.hosts[node];
        if host.postgres.is_up() || host.disk.data.is_none() {
            return false;
        }
        let generation = host.postgres.generation + 1;
        let run = Run::Starting { writable };
        host.postgres = Postgres { generation, run, checkpointed: true, ..Postgres::default() };
        let crashed = host.disk.data.as_mut().is_some_and(|data| !std::mem::take(&mut data.clean));
        let ms = if crashed { self.some_ms(50, 1200) } else { self.some_ms(20, 120) };
        self.queue.after(ms, Event::Started { node, generation });
        true
    }

    fn is_run(&self, node: usize, generation: u64) -> bool {
        let postgres = &self.hosts[node].postgres;
        postgres.generation == generation && postgres.is_up()
    }

    pub fn started(&mut self, node: usize, generation: u64) {
        if !self.is_run(node, generation) {
            return;
        }
        let Run::Starting { writable } = self.hosts[node].postgres.run else { return };
        match writable {
            true => self.open(node),
            false => {
                self.hosts[node].postgres.run = Run::Recovery;
                self.note_recovery(node, true);
                self.queue.after(1, Event::Receive { node, generation });
            }
        }
        self.wake_agent(node);
    }

    fn open(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        host.postgres.run = Run::Primary;
        host.opening += 1;
        let (generation, opening) = (host.postgres.generation, host.opening);
        self.note_recovery(node, false);
        self.note(Fact::Opened { node, opening });
        self.append(node);
        self.queue.after(FEED_MS, Event::Feed { node, generation });
        let ms = self.some_ms(100, 500);
        self.queue.after(ms, Event::Checkpointed { node, generation });
    }

    /// The state in its control file.
    fn note_recovery(&mut self, node: usize, in_recovery: bool) {
        if let Some(data) = &mut self.hosts[node].disk.data {
            data.in_recovery = in_recovery;
        }
    }

    /// Something that no client asked for.
    fn append(&mut self, node: usize) {
        self.entries += 1;
        let entry = self.entries;
        if let Some(data) = &mut self.hosts[node].disk.data {
            data.flushed = data.append(entry);
        }
    }

    pub fn promoted(&mut self, node: usize, generation: u64) {
        if !self.is_run(node, generation) || self.hosts[node].postgres.run != Run::Recovery {
            return;
        }
        self.hang_up(node);
        let host = &mut self.hosts[node];
        (host.postgres.promoting, host.postgres.checkpointed) = (false, false);
        let Some(data) = &mut host.disk.data else { return };
        let (log, timeline) = (data.log.clone(), data.fork(host.postgres.timeline));
        self.note(Fact::Promoted { node, timeline, log });
        self.open(node);
        self.wake_agent(node);
    }

    pub fn checkpointed(&mut self, node: usize, generation: u64) {
        if self.is_run(node, generation) {
            self.hosts[node].postgres.checkpointed = true;
        }
    }

    /// SIGKILL to all of it; a moment later nothing is left.
    pub fn kill(&mut self, node: usize) {
        let postgres = &mut self.hosts[node].postgres;
        if postgres.is_up() && !postgres.dying {
            postgres.dying = true;
            let generation = postgres.generation;
            let ms = self.some_ms(0, self.scenario.kill_ms);
            self.queue.after(ms, Event::Gone { node, generation });
        }
    }

    pub fn gone(&mut self, node: usize, generation: u64) {
        if self.is_run(node, generation) {
            self.end_postgres(node);
            self.wake_agent(node);
        }
    }

    /// No process is left, however that came.
    pub fn end_postgres(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        let (run, opening) = (host.postgres.run, host.opening);
        if matches!(run, Run::Primary) {
            self.note(Fact::Closed { node, opening });
        }
        self.hang_up(node);
        self.hosts[node].postgres.end();
        if let Some(agent) = &mut self.hosts[node].agent {
            let memory = &mut agent.memory;
            (memory.sealed, memory.has_end, memory.conf) = (None, false, None);
            memory.settlement = Default::default();
        }
        // Its kernel, when it lives, tells standbys.
        if self.hosts[node].power {
            for other in 0..self.hosts.len() {
                let receives = self.hosts[other].postgres.receiver.as_ref();
                if receives.is_some_and(|row| row.from == node) && self.net.connects(node, other) {
                    self.hang_up(other);
                }
            }
        }
    }

    /// The walreceiver ends; what it received is on disk then.
    pub fn hang_up(&mut self, node: usize) {
        let Some(receiver) = self.hosts[node].postgres.receiver.take() else { return };
        if self.hosts[node].power
            && let Some(data) = &mut self.hosts[node].disk.data
        {
            data.flushed = data.log.len();
        }
        if self.net.connects(node, receiver.from) {
            let senders = &mut self.hosts[receiver.from].postgres.senders;
            if senders.get(&node).is_some_and(|sender| sender.number == receiver.number) {
                senders.remove(&node);
            }
        }
    }

    pub fn begin_stop(&mut self, node: usize) {
        let (run, opening) = (self.hosts[node].postgres.run, self.hosts[node].opening);
        let generation = self.hosts[node].postgres.generation;
        match run {
            Run::Down | Run::Stopping => return,
            Run::Primary => {
                self.note(Fact::Closed { node, opening });
                self.append(node);
            }
            Run::Recovery | Run::Starting { .. } => self.hang_up(node),
        }
        let postgres = &mut self.hosts[node].postgres;
        postgres.run = Run::Stopping;
        // Sessions end; their commits were not acknowledged.
        postgres.waiting.clear();
        let since = self.now();
        self.queue.after(10, Event::Stopping { node, generation, since });
    }

    /// A clean stop ends when those who receive have everything.
    pub fn stopping(&mut self, node: usize, generation: u64, since: At) {
        if !self.is_run(node, generation) || self.hosts[node].postgres.run != Run::Stopping {
            return;
        }
        self.send(node);
        let end = self.hosts[node].disk.data.as_ref().map_or(0, |data| data.log.len());
        let waits = self.hosts[node].postgres.senders.values().any(|s| s.flushed < end);
        if waits || self.hosts[node].postgres.hung.is_some() {
            return self.queue.after(20, Event::Stopping { node, generation, since });
        }
        if let Some(data) = &mut self.hosts[node].disk.data {
            data.clean = true;
        }
        self.end_postgres(node);
        self.wake_agent(node);
    }

    pub fn feed(&mut self, node: usize, generation: u64) {
        if self.is_run(node, generation) && self.hosts[node].postgres.run == Run::Primary {
            self.send(node);
            self.queue.after(FEED_MS, Event::Feed { node, generation });
        }
    }

    /// Walsenders send what is new, and give up who is silent.
    fn send(&mut self, node: usize) {
        let now = self.now();
        let host = &mut self.hosts[node];
        if host.postgres.hung.is_some() {
            return;
        }
        host.postgres.senders.retain(|_, sender| now < sender.heard + TIMEOUT_MS);
        let Some(data) = &host.disk.data else { return };
        let end = data.flushed;
        let all: Vec<(usize, u64, usize, Vec<u64>)> = host
            .postgres
            .senders
            .iter_mut()
            .map(|(to, sender)| {
                // What was not confirmed is sent again, as the network below would.
                let start = sender.flushed.min(end);
                sender.sent = end;
                (*to, sender.number, start, data.log[start..end].to_vec())
            })
            .collect();
        for (to, number, start, entries) in all {
            if self.net.carries(node, to) {
                let ms = self.some_ms(0, self.scenario.lag_ms) + self.net.slow_ms;
                let wal = Event::Wal { node: to, from: node, number, start, entries, end };
                self.queue.after(ms, wal);
            }
        }
    }

    /// A walreceiver connects, or gives its sender up.
    pub fn receive(&mut self, node: usize, generation: u64) {
        if !self.is_run(node, generation) || self.hosts[node].postgres.run != Run::Recovery {
            return;
        }
        let now = self.now();
        self.queue.after(RECEIVE_MS, Event::Receive { node, generation });
        let postgres = &self.hosts[node].postgres;
        if let Some(receiver) = &postgres.receiver {
            if now >= receiver.heard + TIMEOUT_MS {
                self.hang_up(node);
            }
            return;
        }
        let Some(from) = postgres.upstream.filter(|_| postgres.hung.is_none()) else { return };
        let there = &self.hosts[from];
        let serves = there.postgres.writes() && !there.postgres.dying;
        if !serves || !self.net.connects(node, from) {
            return;
        }
        let (Some(mine), Some(theirs)) = (&self.hosts[node].disk.data, &there.disk.data) else {
            return;
        };
        if !theirs.serves(mine) {
            return;
        }
        self.connections += 1;
        let number = self.connections;
        let flushed = mine.flushed.min(mine.log.len());
        let receiver = Receiver { from, number, heard: now, end: theirs.end() };
        let sender = Sender { number, sent: flushed, flushed, heard: now };
        self.hosts[node].postgres.receiver = Some(receiver);
        self.hosts[from].postgres.senders.insert(node, sender);
        self.acknowledge(from);
    }

    pub fn wal(
        &mut self,
        node: usize,
        from: usize,
        number: u64,
        start: usize,
        entries: &[u64],
        end: usize,
    ) {
        let now = self.now();
        let lineage = match &self.hosts[from].disk.data {
            Some(data) => data.lineage.clone(),
            None => return,
        };
        if !self.net.carries(from, node) {
            return;
        }
        let host = &mut self.hosts[node];
        let hung = host.postgres.hung.is_some();
        let Some(receiver) = host.postgres.receiver.as_mut().filter(|row| row.number == number)
        else {
            return;
        };
        if hung {
            return;
        }
        receiver.heard = now;
        receiver.end = lockstep_model::cluster::Lsn(end as u64);
        let Some(data) = &mut host.disk.data else { return };
        let has = data.log.len();
        let known = has.saturating_sub(start).min(entries.len());
        let is_same = start <= has && data.log[start..start + known] == entries[..known];
        if start > has {
            return;
        }
        data.log.extend_from_slice(&entries[known..]);
        data.follow(&lineage);
        let (upto, generation) = (data.log.len(), host.postgres.generation);
        if !is_same {
            self.note(Fact::Mixed { node, from });
        }
        if self.is(Mutation::AcknowledgeBeforeFlush) {
            let ms = self.some_ms(0, 3);
            self.queue.after(ms, Event::Reply { node: from, from: node, number, flushed: upto });
            self.queue.after(600, Event::Flushed { node, generation, number, upto });
        } else {
            let ms = self.some_ms(0, 4);
            self.queue.after(ms, Event::Flushed { node, generation, number, upto });
        }
    }

    pub fn flushed(&mut self, node: usize, generation: u64, number: u64, upto: usize) {
        if !self.is_run(node, generation) {
            return;
        }
        let host = &mut self.hosts[node];
        let Some(data) = &mut host.disk.data else { return };
        data.flushed = data.flushed.max(upto.min(data.log.len()));
        let flushed = data.flushed;
        let Some(receiver) = host.postgres.receiver.as_ref().filter(|row| row.number == number)
        else {
            return;
        };
        let from = receiver.from;
        if self.net.carries(node, from) {
            let ms = self.some_ms(0, 3) + self.net.slow_ms;
            self.queue.after(ms, Event::Reply { node: from, from: node, number, flushed });
        }
    }

    /// At the walsender.
    pub fn reply(&mut self, node: usize, from: usize, number: u64, flushed: usize) {
        let now = self.now();
        if !self.net.carries(from, node) || self.hosts[node].postgres.hung.is_some() {
            return;
        }
        let senders = &mut self.hosts[node].postgres.senders;
        if let Some(sender) = senders.get_mut(&from).filter(|sender| sender.number == number) {
            sender.heard = now;
            sender.flushed = sender.flushed.max(flushed);
            self.acknowledge(node);
        }
    }

    /// Clients whose commits enough standbys have hear of it.
    pub fn acknowledge(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if !host.postgres.writes() {
            return;
        }
        if self.mutation == Some(Mutation::OneVoterLess) {
            let promised = host.postgres.quorum.k;
            if promised == 1 {
                let done: Vec<Waiting> = host.postgres.waiting.drain(..).collect();
                return self.note_acknowledged(node, &done, promised);
            }
        }
        let waited_for = host.postgres.quorum.k;
        let done = host.postgres.release(&self.names);
        self.note_acknowledged(node, &done, waited_for);
    }

    fn note_acknowledged(&mut self, node: usize, done: &[Waiting], waited_for: u32) {
        let opening = self.hosts[node].opening;
        for Waiting { entry, .. } in done {
            let entry = *entry;
            self.note(Fact::Acknowledged { node, opening, entry, waited_for });
        }
    }

    pub fn write(&mut self) {
        for node in 0..self.hosts.len() {
            if !self.hosts[node].postgres.writes() || !self.clients {
                continue;
            }
            self.entries += 1;
            let entry = self.entries;
            let Some(data) = &mut self.hosts[node].disk.data else { continue };
            let end = data.append(entry);
            data.flushed = end;
            self.hosts[node].postgres.waiting.push(Waiting { entry, end });
            self.acknowledge(node);
            self.send(node);
        }
        let ms = self.some_ms(20, 90);
        self.queue.after(ms, Event::Clients);
    }
}
