//! Who acts and where: users, groups, projects and domains.

use cairn_state::{Index, Record};
use serde::{Deserialize, Serialize};

use super::Extra;

/// A user. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// The id.
    pub id: String,
    /// The name, unique within the domain (without regard to case, as clients are used to).
    pub name: String,
    /// The domain that owns the user.
    pub domain_id: String,
    /// Whether the user may authenticate.
    pub enabled: bool,
    /// The project a request without a scope gets, if the user has a role there.
    pub default_project_id: Option<String>,
    /// The password's hash, an argon2 PHC string; `None` for a user without a password.
    pub password: Option<String>,
    /// Tokens issued at or before this are not valid (microseconds since the epoch).
    pub tokens_after_us: i64,
    /// `options` of the API.
    pub options: Extra,
    /// All other attributes, `email` and `description` among them.
    pub extra: Extra,
}

impl Record for User {
    const KIND: &'static str = "identity/user";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        within(&self.domain_id, &self.name)
    }
}

/// A group of users. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The id.
    pub id: String,
    /// The name, unique within the domain.
    pub name: String,
    /// The domain that owns the group.
    pub domain_id: String,
    /// What it is for.
    pub description: String,
    /// All other attributes.
    pub extra: Extra,
}

impl Record for Group {
    const KIND: &'static str = "identity/group";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        within(&self.domain_id, &self.name)
    }
}

/// A user's membership in a group. Writer: controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// The group.
    pub group_id: String,
    /// The user.
    pub user_id: String,
}

impl Record for Membership {
    const KIND: &'static str = "identity/membership";

    fn id(&self) -> String {
        format!("{}/{}", self.group_id, self.user_id)
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::multi("user", &self.user_id), Index::multi("group", &self.group_id)]
    }
}

/// A project, or a domain. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// The id.
    pub id: String,
    /// The name, unique within the domain; a domain's is unique in the cloud.
    pub name: String,
    /// The owning domain; empty for a domain.
    pub domain_id: String,
    /// The project above, or the domain for one at the top; empty for a domain.
    pub parent_id: String,
    /// Whether this is a domain.
    pub is_domain: bool,
    /// Whether tokens can be had for it.
    pub enabled: bool,
    /// What it is for.
    pub description: String,
    /// The tags, in order, each once.
    pub tags: Vec<String>,
    /// `options` of the API.
    pub options: Extra,
    /// All other attributes.
    pub extra: Extra,
}

impl Record for Project {
    const KIND: &'static str = "identity/project";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut all = vec![Index::unique("name", scoped(&self.domain_id, &self.name))];
        match self.is_domain {
            true => all.push(Index::multi("is-domain", "true")),
            false => {
                all.push(Index::multi("domain", &self.domain_id));
                all.push(Index::multi("parent", &self.parent_id));
            }
        }
        all
    }
}

/// The indexes of what a domain owns.
fn within(domain_id: &str, name: &str) -> Vec<Index> {
    vec![Index::unique("name", scoped(domain_id, name)), Index::multi("domain", domain_id)]
}

/// The value of a name's unique index.
pub(crate) fn scoped(domain_id: &str, name: &str) -> String {
    format!("{domain_id}:{}", name.to_lowercase())
}
