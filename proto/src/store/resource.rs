//! Records of what people name: the fleet, nodes, tokens and users.

use lockstep_model::identity::{Role, Token, TokenFor, User};
use lockstep_model::mirror::PushToken;
use lockstep_model::node::{ADDRESSES_MAX, Node, NodeAdmin};
use lockstep_model::past::{Life, Past};
use lockstep_model::record::Fleet;
use lockstep_model::{Incarnation, Invalid, LifeId, Revision, Timestamp};

use super::field::{
    from_all, from_key_hash, from_labels, from_optional_key_hash, hash, key_hash, labels, missing,
    optional_key_hash, parse, parse_all, unknown,
};
use crate::store_v1::{self as wire, token::Grants};

impl From<&Fleet> for wire::Fleet {
    fn from(fleet: &Fleet) -> Self {
        let Fleet { name, incarnation, created_at } = fleet;
        Self { name: name.to_string(), incarnation: incarnation.0, created_at_ms: created_at.0 }
    }
}

impl TryFrom<wire::Fleet> for Fleet {
    type Error = Invalid;
    fn try_from(fleet: wire::Fleet) -> Result<Self, Invalid> {
        let wire::Fleet { name, incarnation, created_at_ms } = fleet;
        Ok(Self {
            name: parse("name", &name)?,
            incarnation: Incarnation(incarnation),
            created_at: Timestamp(created_at_ms),
        })
    }
}

impl From<&Past> for wire::Past {
    fn from(Past { lives }: &Past) -> Self {
        let life = |Life { id, began }: &Life| wire::Life { id: id.0, began: began.0 };
        Self { lives: lives.iter().map(life).collect() }
    }
}

impl TryFrom<wire::Past> for Past {
    type Error = Invalid;
    fn try_from(wire::Past { lives }: wire::Past) -> Result<Self, Invalid> {
        let most = Self::LIVES_MAX;
        if lives.len() > most {
            return Err(Invalid::new("lives", format!("at most {most} fit")));
        }
        let mut past = Self { lives: Vec::with_capacity(lives.len()) };
        for wire::Life { id, began } in lives {
            let after = past.lives.last().map_or(0, |last| last.began.0);
            if id == LifeId::NONE.0 || began <= after {
                return Err(Invalid::new("lives", "each has a number, and begins after the last"));
            }
            past.lives.push(Life { id: LifeId(id), began: Revision(began) });
        }
        Ok(past)
    }
}

impl From<&Node> for wire::Node {
    fn from(node: &Node) -> Self {
        let Node { name, labels, admin, key_hash, addresses, created_at } = node;
        Self {
            name: name.to_string(),
            labels: from_labels(labels),
            admin: wire::NodeAdmin::from(*admin).into(),
            key_hash: from_key_hash(*key_hash),
            addresses: from_all(addresses),
            created_at_ms: created_at.0,
        }
    }
}

impl TryFrom<wire::Node> for Node {
    type Error = Invalid;
    fn try_from(node: wire::Node) -> Result<Self, Invalid> {
        let admin = node.admin();
        let wire::Node { name, labels: pairs, admin: _, key_hash: key, addresses, created_at_ms } =
            node;
        Ok(Self {
            name: parse("name", &name)?,
            labels: labels(pairs)?,
            admin: admin.try_into()?,
            key_hash: key_hash("key_hash", &key)?,
            addresses: parse_all("addresses", addresses, ADDRESSES_MAX)?,
            created_at: Timestamp(created_at_ms),
        })
    }
}

impl From<NodeAdmin> for wire::NodeAdmin {
    fn from(admin: NodeAdmin) -> Self {
        match admin {
            NodeAdmin::Enabled => Self::Enabled,
            NodeAdmin::Draining => Self::Draining,
            NodeAdmin::Disabled => Self::Disabled,
            NodeAdmin::Expelled => Self::Expelled,
        }
    }
}

impl TryFrom<wire::NodeAdmin> for NodeAdmin {
    type Error = Invalid;
    fn try_from(admin: wire::NodeAdmin) -> Result<Self, Invalid> {
        match admin {
            wire::NodeAdmin::Unspecified => Err(unknown("admin")),
            wire::NodeAdmin::Enabled => Ok(Self::Enabled),
            wire::NodeAdmin::Draining => Ok(Self::Draining),
            wire::NodeAdmin::Disabled => Ok(Self::Disabled),
            wire::NodeAdmin::Expelled => Ok(Self::Expelled),
        }
    }
}

impl From<&PushToken> for wire::PushToken {
    fn from(token: &PushToken) -> Self {
        let PushToken { id, secret_sha256, created_at } = token;
        Self {
            id: id.to_string(),
            secret_sha256: secret_sha256.to_vec(),
            created_at_ms: created_at.0,
        }
    }
}

impl TryFrom<wire::PushToken> for PushToken {
    type Error = Invalid;
    fn try_from(token: wire::PushToken) -> Result<Self, Invalid> {
        let wire::PushToken { id, secret_sha256, created_at_ms } = token;
        Ok(Self {
            id: parse("id", &id)?,
            secret_sha256: hash("secret_sha256", &secret_sha256)?,
            created_at: Timestamp(created_at_ms),
        })
    }
}

impl From<&Token> for wire::Token {
    fn from(token: &Token) -> Self {
        let Token { id, secret_sha256, grants, created_at, expires_at, used_by } = token;
        let grants = match grants {
            TokenFor::Node { name, labels } => Grants::Node(wire::NodeGrant {
                name: name.to_string(),
                labels: from_labels(labels),
            }),
            TokenFor::User { name } => Grants::User(wire::UserGrant { name: name.to_string() }),
        };
        Self {
            id: id.to_string(),
            secret_sha256: secret_sha256.to_vec(),
            grants: Some(grants),
            created_at_ms: created_at.0,
            expires_at_ms: expires_at.0,
            used_by: from_optional_key_hash(*used_by),
        }
    }
}

impl TryFrom<wire::Token> for Token {
    type Error = Invalid;
    fn try_from(token: wire::Token) -> Result<Self, Invalid> {
        let wire::Token { id, secret_sha256, grants, created_at_ms, expires_at_ms, used_by } =
            token;
        let grants = match grants.ok_or_else(|| missing("grants"))? {
            Grants::Node(wire::NodeGrant { name, labels: pairs }) => {
                TokenFor::Node { name: parse("node.name", &name)?, labels: labels(pairs)? }
            }
            Grants::User(wire::UserGrant { name }) => {
                TokenFor::User { name: parse("user.name", &name)? }
            }
        };
        Ok(Self {
            id: parse("id", &id)?,
            secret_sha256: hash("secret_sha256", &secret_sha256)?,
            grants,
            created_at: Timestamp(created_at_ms),
            expires_at: Timestamp(expires_at_ms),
            used_by: optional_key_hash("used_by", &used_by)?,
        })
    }
}

impl From<&User> for wire::User {
    fn from(user: &User) -> Self {
        let User { name, role, disabled, key_hash, created_at } = user;
        Self {
            name: name.to_string(),
            role: wire::Role::from(*role).into(),
            disabled: *disabled,
            key_hash: from_optional_key_hash(*key_hash),
            created_at_ms: created_at.0,
        }
    }
}

impl TryFrom<wire::User> for User {
    type Error = Invalid;
    fn try_from(user: wire::User) -> Result<Self, Invalid> {
        let role = user.role();
        let wire::User { name, role: _, disabled, key_hash, created_at_ms } = user;
        Ok(Self {
            name: parse("name", &name)?,
            role: role.try_into()?,
            disabled,
            key_hash: optional_key_hash("key_hash", &key_hash)?,
            created_at: Timestamp(created_at_ms),
        })
    }
}

impl From<Role> for wire::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::Operator => Self::Operator,
            Role::Owner => Self::Owner,
            Role::Viewer => Self::Viewer,
        }
    }
}

impl TryFrom<wire::Role> for Role {
    type Error = Invalid;
    fn try_from(role: wire::Role) -> Result<Self, Invalid> {
        match role {
            wire::Role::Unspecified => Err(unknown("role")),
            wire::Role::Admin => Ok(Self::Admin),
            wire::Role::Operator => Ok(Self::Operator),
            wire::Role::Owner => Ok(Self::Owner),
            wire::Role::Viewer => Ok(Self::Viewer),
        }
    }
}
