//! The last log of a dead instance brought to the member that is to be promoted: offered by the old
//! one's agent, taken by the candidate's, and served to its recovery from a directory.

mod fetch;
mod frame;
mod shelf;
mod stock;

pub use fetch::{Salvaged, Wish, fetch};
pub use shelf::{Restore, clear, restore, restore_command};
pub use stock::{Offer, Offered, Stock, serve};
