//! Roles, what they imply, and who has them where.

use cairn_state::{Index, Record};
use serde::{Deserialize, Serialize};

use super::Extra;
use super::actors::scoped;

/// A role. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// The id.
    pub id: String,
    /// The name, unique in the cloud, or within the domain for a domain's own role.
    pub name: String,
    /// The domain of a domain's own role. Such a role never appears in a token, only what it implies does.
    pub domain_id: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// `options` of the API.
    pub options: Extra,
    /// All other attributes.
    pub extra: Extra,
}

impl Record for Role {
    const KIND: &'static str = "identity/role";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::unique("name", scoped(self.domain_id.as_deref().unwrap_or(""), &self.name))]
    }
}

/// Who has `prior` has `implied` too. Writer: controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Implication {
    /// The role that implies.
    pub prior: String,
    /// The role that is implied.
    pub implied: String,
}

impl Record for Implication {
    const KIND: &'static str = "identity/implication";

    fn id(&self) -> String {
        format!("{}/{}", self.prior, self.implied)
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::multi("prior", &self.prior), Index::multi("implied", &self.implied)]
    }
}

/// Who holds a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Actor {
    /// A user's id.
    User(String),
    /// A group's id.
    Group(String),
}

impl Actor {
    /// The text it is indexed by.
    pub fn key(&self) -> String {
        match self {
            Actor::User(id) => format!("u/{id}"),
            Actor::Group(id) => format!("g/{id}"),
        }
    }
}

/// Where a role is held.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// A project's id.
    Project(String),
    /// A domain's id.
    Domain(String),
    /// The cloud itself.
    System,
}

impl Target {
    /// The text it is indexed by.
    pub fn key(&self) -> String {
        match self {
            Target::Project(id) => format!("p/{id}"),
            Target::Domain(id) => format!("d/{id}"),
            Target::System => "s/all".into(),
        }
    }
}

/// A role held by an actor on a target. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Assignment {
    /// Who.
    pub actor: Actor,
    /// Where.
    pub target: Target,
    /// The role's id.
    pub role_id: String,
    /// Whether it holds on the projects below the target instead of on the target itself (`OS-INHERIT`).
    pub inherited: bool,
}

impl Assignment {
    /// The index value of all assignments of an actor on a target.
    pub fn pair(actor: &Actor, target: &Target) -> String {
        format!("{}@{}", actor.key(), target.key())
    }
}

impl Record for Assignment {
    const KIND: &'static str = "identity/assignment";

    fn id(&self) -> String {
        let tail = if self.inherited { "/inherited" } else { "" };
        format!("{}/{}/{}{tail}", self.actor.key(), self.target.key(), self.role_id)
    }

    fn indexes(&self) -> Vec<Index> {
        vec![
            Index::multi("pair", Assignment::pair(&self.actor, &self.target)),
            Index::multi("actor", self.actor.key()),
            Index::multi("target", self.target.key()),
            Index::multi("role", &self.role_id),
        ]
    }
}
