//! Entries of the log: who wrote what, and why.

use lockstep_model::identity::Subject;
use lockstep_model::record::{Actor, Change, RequestDone, TXN_WRITES_MAX, Write};
use lockstep_model::{Invalid, Revision, Timestamp};

use super::field::{check_count, missing, parse};
use crate::store_v1::{self as wire, actor::Who};

impl From<&Change> for wire::LogEntry {
    /// Without the revision: that is in the key and in the envelope.
    fn from(change: &Change) -> Self {
        let Change { revision: _, at, actor, cause, writes } = change;
        Self {
            at_ms: at.0,
            actor: Some(actor.into()),
            cause: cause.clone(),
            writes: writes.iter().map(Into::into).collect(),
        }
    }
}

impl wire::LogEntry {
    pub fn into_change(self, revision: Revision) -> Result<Change, Invalid> {
        let Self { at_ms, actor, cause, writes } = self;
        check_count("writes", writes.len(), TXN_WRITES_MAX)?;
        let read = |(i, write): (usize, wire::LogWrite)| {
            Write::try_from(write).map_err(|e| e.within(format!("writes[{i}]")))
        };
        Ok(Change {
            revision,
            at: Timestamp(at_ms),
            actor: actor.ok_or_else(|| missing("actor"))?.try_into()?,
            cause,
            writes: writes.into_iter().enumerate().map(read).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Write> for wire::LogWrite {
    fn from(write: &Write) -> Self {
        let write = match write {
            Write::Put(record) => wire::log_write::Write::Put(record.into()),
            Write::Delete(key) => wire::log_write::Write::Delete(key.to_string()),
        };
        Self { write: Some(write) }
    }
}

impl TryFrom<wire::LogWrite> for Write {
    type Error = Invalid;
    fn try_from(write: wire::LogWrite) -> Result<Self, Invalid> {
        let wire::LogWrite { write } = write;
        match write.ok_or_else(|| missing("write"))? {
            wire::log_write::Write::Put(record) => Ok(Self::Put(record.try_into()?)),
            wire::log_write::Write::Delete(key) => Ok(Self::Delete(parse("delete", &key)?)),
        }
    }
}

impl From<&Actor> for wire::Actor {
    fn from(actor: &Actor) -> Self {
        let who = match actor {
            Actor::Planner => Who::Planner(wire::Nobody {}),
            Actor::Offline => Who::Offline(wire::Nobody {}),
            Actor::Anonymous => Who::Anonymous(wire::Nobody {}),
            Actor::Subject(Subject::Controller(name)) => Who::Controller(name.to_string()),
            Actor::Subject(Subject::Node(name)) => Who::Node(name.to_string()),
            Actor::Subject(Subject::User(name)) => Who::User(name.to_string()),
        };
        Self { who: Some(who) }
    }
}

impl TryFrom<wire::Actor> for Actor {
    type Error = Invalid;
    fn try_from(actor: wire::Actor) -> Result<Self, Invalid> {
        let wire::Actor { who } = actor;
        let actor = match who.ok_or_else(|| missing("actor.who"))? {
            Who::Planner(wire::Nobody {}) => Self::Planner,
            Who::Offline(wire::Nobody {}) => Self::Offline,
            Who::Anonymous(wire::Nobody {}) => Self::Anonymous,
            Who::Controller(name) => {
                Self::Subject(Subject::Controller(parse("actor.controller", &name)?))
            }
            Who::Node(name) => Self::Subject(Subject::Node(parse("actor.node", &name)?)),
            Who::User(name) => Self::Subject(Subject::User(parse("actor.user", &name)?)),
        };
        Ok(actor)
    }
}

impl From<&RequestDone> for wire::Request {
    fn from(done: &RequestDone) -> Self {
        let RequestDone { id, actor, cause, at } = done;
        Self { id: id.to_string(), actor: Some(actor.into()), cause: cause.clone(), at_ms: at.0 }
    }
}

impl TryFrom<wire::Request> for RequestDone {
    type Error = Invalid;
    fn try_from(request: wire::Request) -> Result<Self, Invalid> {
        let wire::Request { id, actor, cause, at_ms } = request;
        Ok(Self {
            id: parse("id", &id)?,
            actor: actor.ok_or_else(|| missing("actor"))?.try_into()?,
            cause,
            at: Timestamp(at_ms),
        })
    }
}
