//! Who may ask and order what: people with keys and roles beside the coordinator's own key, which may everything.

use std::fmt;

use packfed_protocol::{Order, Rejection, RejectionCode, WorkerId};
use serde::{Deserialize, Serialize};

/// What somebody may do; each may what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Asks.
    Viewer,
    /// Steers workers, rounds, releases and rollouts.
    Operator,
    /// Decides who takes part, and what the run is.
    Owner,
}

/// `[[admins]]`: somebody who may administer this coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// What the audit log calls them; at most 64 characters.
    pub name: String,
    /// Their public key, as `coordinator admin key` prints it.
    pub key: WorkerId,
    /// What they may do.
    pub role: Role,
}

impl Role {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Owner => "owner",
        }
    }

    /// The least role that may order this.
    #[must_use]
    pub const fn of(order: &Order) -> Self {
        match order {
            Order::List(_)
            | Order::Rounds(_)
            | Order::Run
            | Order::Releases
            | Order::Rollouts(_)
            | Order::Rollout(_)
            | Order::Picture => Self::Viewer,
            Order::Admit(_)
            | Order::Suspend(_)
            | Order::Label { .. }
            | Order::Release { .. }
            | Order::Abandon
            | Order::Pause
            | Order::Unpause
            | Order::Start { .. }
            | Order::Steer { .. } => Self::Operator,
            Order::Revoke(_) | Order::Tokens(_) | Order::Set(_) => Self::Owner,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Admin {
    /// Whether an order is theirs to give.
    ///
    /// # Errors
    /// If it is not, with the role that it needs.
    pub fn may(&self, order: &Order) -> Result<(), Rejection> {
        let (needed, Self { name, role, .. }) = (Role::of(order), self);
        if *role >= needed {
            return Ok(());
        }
        let detail = format!("that needs the role {needed}, {name} has the role {role}; an owner may change it");
        Err(Rejection::new(RejectionCode::Forbidden, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_only_look_is_refused_every_change() {
        let admin = |role| Admin { name: "ann".to_owned(), key: WorkerId([1; 32]), role };
        let worker = WorkerId([2; 32]);
        for order in [Order::Admit(worker), Order::Abandon, Order::Pause, Order::Revoke(worker)] {
            let rejection = admin(Role::Viewer).may(&order).unwrap_err();
            assert_eq!(rejection.code, RejectionCode::Forbidden);
        }
        assert_eq!(admin(Role::Viewer).may(&Order::Picture), Ok(()));
        assert_eq!(admin(Role::Operator).may(&Order::Pause), Ok(()));
        let told = admin(Role::Operator).may(&Order::Revoke(worker)).unwrap_err().detail;
        assert_eq!(told, "that needs the role owner, ann has the role operator; an owner may change it");
        assert_eq!(admin(Role::Owner).may(&Order::Revoke(worker)), Ok(()));
    }
}
