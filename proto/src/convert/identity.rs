//! Users, roles, tokens.

use lockstep_model::identity::{Role, Token, TokenFor, User};
use lockstep_model::{Invalid, Revision};

use super::node::wire_labels;
use super::to_wire_time;
use crate::v1;

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Owner => Self::Owner,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}

impl TryFrom<v1::Role> for Role {
    type Error = Invalid;
    fn try_from(role: v1::Role) -> Result<Self, Invalid> {
        Ok(match role {
            v1::Role::Unspecified => {
                let problem = "must be one of admin, operator, owner, viewer";
                return Err(Invalid::new("role", problem));
            }
            v1::Role::Viewer => Self::Viewer,
            v1::Role::Owner => Self::Owner,
            v1::Role::Operator => Self::Operator,
            v1::Role::Admin => Self::Admin,
        })
    }
}

impl v1::User {
    pub fn of(user: &User, revision: Revision) -> Self {
        let User { name, role, disabled, key_hash, created_at } = user;
        Self {
            name: name.to_string(),
            role: v1::Role::from(*role).into(),
            disabled: *disabled,
            enrolled: key_hash.is_some(),
            created_at: Some(to_wire_time(*created_at)),
            revision: revision.0,
        }
    }
}

impl From<&Token> for v1::Token {
    /// Never the secret, nor its hash.
    fn from(token: &Token) -> Self {
        let Token { id, secret_sha256: _, grants, created_at, expires_at, used_by } = token;
        let labels = match grants {
            TokenFor::Node { name: _, labels } => wire_labels(labels),
            TokenFor::User { name: _ } => Default::default(),
        };
        Self {
            id: id.to_string(),
            subject: grants.subject().to_string(),
            labels,
            created_at: Some(to_wire_time(*created_at)),
            expires_at: Some(to_wire_time(*expires_at)),
            used: used_by.is_some(),
        }
    }
}
