//! A sync end to end, with real lsyncd and rsync, and with what plain lsyncd gets wrong.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod attack;
mod classic;
mod daemons;
mod drift;
mod events;
mod faults;
mod fleet;
mod guard;
mod lag;
mod links;
mod now;
mod pace;
mod promises;
mod relay;
mod remote;
mod renames;
mod settings;
mod standing;
