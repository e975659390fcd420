//! Tokens with which an upstream's own programs ask for runs of one mirror.

use lockstep_model::mirror::{Mirror, PushToken};
use lockstep_model::record::{Actor, Record};
use lockstep_model::{MirrorName, Reject, Timestamp, TokenId};

use super::mirror_owner::check_owner;
use super::mirrors::find;
use super::{Admitted, check_room};
use crate::World;

pub(super) fn create(
    world: &World,
    who: &Actor,
    name: &MirrorName,
    id: &TokenId,
    secret_sha256: [u8; 32],
    now: Timestamp,
) -> Result<Admitted, Reject> {
    let before = find(world, name)?;
    check_owner(world, who, before)?;
    check_room("push tokens of this mirror", before.push_tokens.len(), PushToken::MAX)?;
    let mut push_tokens = before.push_tokens.clone();
    let Err(at) = push_tokens.binary_search_by(|token| token.id.cmp(id)) else {
        let message = format!("push token {id} exists: draw another id");
        return Err(Reject::exists(format!("mirror/{name}"), message));
    };
    push_tokens.insert(at, PushToken { id: id.clone(), secret_sha256, created_at: now });
    let mirror = Mirror { push_tokens, ..before.clone() };
    Ok(Admitted::put(Record::Mirror(mirror), format!("push token {id} asks for runs of {name}")))
}

pub(super) fn delete(
    world: &World,
    who: &Actor,
    name: &MirrorName,
    id: &TokenId,
) -> Result<Admitted, Reject> {
    let before = find(world, name)?;
    check_owner(world, who, before)?;
    let mut mirror = before.clone();
    mirror.push_tokens.retain(|token| token.id != *id);
    if mirror == *before {
        return Ok(Admitted::already(format!("mirror {name} has no push token {id}")));
    }
    Ok(Admitted::put(Record::Mirror(mirror), format!("push token {id} of {name} deleted")))
}
