//! All that can happen next. An event of something that has ended meanwhile, such as an earlier run of
//! an agent, means nothing.

use lockstep_agent::pg::books::Books;
use lockstep_model::Millis;
use lockstep_model::cluster::Term;
use lockstep_model::request::Request;

use super::queue::At;

pub type Change = Box<dyn FnOnce(&mut Books)>;

pub enum Event {
    /// The controller's process begins.
    ControllerStarts,
    /// Its disk answered.
    Committed {
        life: u64,
    },
    /// Time alone may change the plan.
    Wake {
        life: u64,
    },
    /// Something waits on a stream.
    Stream {
        node: usize,
        session: u64,
    },
    /// Nobody answered on it for too long.
    Silent {
        session: u64,
    },
    AgentStarts {
        node: usize,
        boot: u64,
    },
    /// It dials, or says that it lives, or notices that nobody answers.
    Beat {
        node: usize,
        run: u64,
    },
    Turn {
        node: usize,
        run: u64,
        number: u64,
    },
    Phase {
        node: usize,
        run: u64,
        step: u64,
        phase: u8,
    },
    /// Books are on disk.
    Kept {
        node: usize,
        boot: u64,
        run: u64,
        change: Change,
        then: Then,
    },
    Round {
        node: usize,
        run: u64,
        number: u64,
    },
    /// A promise is asked for.
    Asked {
        node: usize,
        from: usize,
        term: Term,
        length: Millis,
        sent_ms: u64,
    },
    Answered {
        node: usize,
        from: usize,
        term: Term,
        sent_ms: u64,
        answer: Result<Millis, String>,
    },
    /// The lease may have ended.
    Over {
        node: usize,
        run: u64,
    },
    Admitted {
        node: usize,
        run: u64,
    },
    Guard {
        node: usize,
        boot: u64,
    },
    /// No process of the postmaster is left.
    Gone {
        node: usize,
        generation: u64,
    },
    Started {
        node: usize,
        generation: u64,
    },
    Promoted {
        node: usize,
        generation: u64,
    },
    Checkpointed {
        node: usize,
        generation: u64,
    },
    Feed {
        node: usize,
        generation: u64,
    },
    /// Log on its way from a walsender.
    Wal {
        node: usize,
        from: usize,
        number: u64,
        start: usize,
        entries: Vec<u64>,
        end: usize,
    },
    Flushed {
        node: usize,
        generation: u64,
        number: u64,
        upto: usize,
    },
    Reply {
        node: usize,
        from: usize,
        number: u64,
        flushed: usize,
    },
    Receive {
        node: usize,
        generation: u64,
    },
    Stopping {
        node: usize,
        generation: u64,
        since: At,
    },
    /// Clients write wherever somebody accepts it.
    Clients,
    Fault(usize),
    Mend(usize),
    Request(Box<Request>),
    PowerOn {
        node: usize,
        boot: u64,
    },
    Thaw {
        node: usize,
    },
}

/// What goes on once books are on disk.
pub enum Then {
    Nothing,
    /// The step that asked for it.
    Phase {
        run: u64,
        step: u64,
        phase: u8,
    },
    /// The place that waited for it.
    Placed {
        run: u64,
        task: lockstep_model::TaskId,
    },
    Promise {
        to: usize,
        term: Term,
        length: Millis,
        sent_ms: u64,
    },
}
