//! Who belongs to the fleet: the certificate authority, and the controller's own certificate. What
//! a certificate's holder may do is the world's to say.

pub mod authority;
pub mod ca;
pub mod draw;
pub mod vault;
