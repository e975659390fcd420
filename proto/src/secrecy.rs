//! What messages that carry a password show of themselves: whom they are about, and nothing more.

use std::fmt;

use crate::v1;

impl fmt::Debug for v1::OfferTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfferTask").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::CreateMirrorRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateMirrorRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::UpdateMirrorRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateMirrorRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::CreateClusterRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateClusterRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::CreatePushTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatePushTokenResponse")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
