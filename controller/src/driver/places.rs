//! Places that members have taken up while a primary is being found: that is stored afterwards, as a
//! commit takes time and no decision waits for it. It drops none.

use lockstep_model::Millis;
use lockstep_model::request::Request;
use lockstep_model::task::OutcomeKind;
use lockstep_transport::clock;

use super::handle::{Ask, Event};
use super::{Driver, Wake};

/// Longest wait of the first one.
const WAIT_MAX: Millis = Millis(500);

#[derive(Default)]
pub(super) struct Places {
    ends: Vec<Event>,
    /// When they are stored at the latest; None: there are none.
    due: Option<Wake>,
}

impl Places {
    pub fn due(&self) -> Option<Wake> {
        self.due
    }

    /// Those whose wait is over.
    pub fn take_due(&mut self) -> Vec<Event> {
        match self.due.is_some_and(|due| due.wait() == Millis(0)) {
            true => self.take_all(),
            false => Vec::new(),
        }
    }

    pub fn take_all(&mut self) -> Vec<Event> {
        self.due = None;
        std::mem::take(&mut self.ends)
    }
}

impl Driver {
    /// What need not wait is given back; all of it when the loop `ends`.
    pub(super) fn hold(&mut self, event: Event, ends: bool) -> Option<Event> {
        if ends || !self.is_of_election(&event) {
            return Some(event);
        }
        self.places.due.get_or_insert_with(|| Wake::new(clock::now() + WAIT_MAX));
        self.places.ends.push(event);
        None
    }

    /// Once a primary is found they wait no longer.
    pub(super) fn settle_places(&mut self) {
        let waits = self.places.ends.iter().any(|event| self.is_of_election(event));
        if !waits && self.places.due.is_some() {
            self.places.due = Some(Wake::new(clock::now()));
        }
    }

    /// One that failed may be what a decision waits for.
    fn is_of_election(&self, event: &Event) -> bool {
        match event {
            Event::Request {
                ask: Ask { request: Request::EndTask { node, id, outcome }, .. },
                ..
            } => {
                outcome.kind == OutcomeKind::Ok
                    && self.shared.read().world.is_of_election(node, *id)
            }
            _ => false,
        }
    }
}
