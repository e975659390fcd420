//! What an agent and its guard say to each other: fixed lengths, nothing to allocate.

use crate::pg::boottime::Boottime;

pub const REQUEST_BYTES: usize = 16;
pub const ANSWER_BYTES: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// End the instance then, unless something else is said before.
    Until(Boottime),
    /// Nothing is to be ended.
    Hold,
    /// Only answer.
    Show,
    /// Nothing is to be guarded any more.
    Quit,
}

const MAGIC: &[u8; 7] = b"lsguard";

impl Request {
    pub fn encode(self) -> [u8; REQUEST_BYTES] {
        match self {
            Self::Until(deadline) => frame(b'u', deadline.0),
            Self::Hold => frame(b'h', 0),
            Self::Show => frame(b's', 0),
            Self::Quit => frame(b'q', 0),
        }
    }

    pub fn decode(bytes: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let (kind, number) = unframe(bytes)?;
        match kind {
            b'u' => Some(Self::Until(Boottime(number))),
            b'h' => Some(Self::Hold),
            b's' => Some(Self::Show),
            b'q' => Some(Self::Quit),
            _ => None,
        }
    }
}

/// To every request, once it is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// None: nothing is to be ended.
    pub deadline: Option<Boottime>,
    /// The kernel's watchdog is armed.
    pub is_watched: bool,
}

impl Answer {
    pub fn encode(self) -> [u8; ANSWER_BYTES] {
        match self.deadline {
            Some(deadline) if self.is_watched => frame(b'W', deadline.0),
            Some(deadline) => frame(b'U', deadline.0),
            None => frame(b'H', 0),
        }
    }

    pub fn decode(bytes: &[u8; ANSWER_BYTES]) -> Option<Self> {
        match unframe(bytes)? {
            (kind @ (b'U' | b'W'), deadline) => {
                Some(Self { deadline: Some(Boottime(deadline)), is_watched: kind == b'W' })
            }
            (b'H', _) => Some(Self { deadline: None, is_watched: false }),
            _ => None,
        }
    }
}

fn frame(kind: u8, number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..7].copy_from_slice(MAGIC);
    bytes[7] = kind;
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn unframe(bytes: &[u8; 16]) -> Option<(u8, u64)> {
    let (head, number) = bytes.split_first_chunk::<8>()?;
    let number = number.try_into().ok().map(u64::from_be_bytes)?;
    head.starts_with(MAGIC).then_some((head[7], number))
}
