//! What a user lets others, or programs, do in the user's name: trusts and application credentials.

use cairn_state::{Index, Record};
use serde::{Deserialize, Serialize};

/// A trust: the trustor's roles on a project, lent to the trustee. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// The id.
    pub id: String,
    /// Who lends.
    pub trustor_user_id: String,
    /// Who may use it.
    pub trustee_user_id: String,
    /// Whether its tokens bear the trustor's name rather than the trustee's.
    pub impersonation: bool,
    /// The project the roles are on; a trust without one gives unscoped tokens' power only.
    pub project_id: Option<String>,
    /// The ids of the roles lent.
    pub roles: Vec<String>,
    /// When it ends, in seconds since the epoch.
    pub expires_s: Option<i64>,
    /// How many more tokens it gives, if that is limited.
    pub remaining_uses: Option<u64>,
}

impl Record for Trust {
    const KIND: &'static str = "identity/trust";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut all = vec![
            Index::multi("trustor", &self.trustor_user_id),
            Index::multi("trustee", &self.trustee_user_id),
        ];
        all.extend(self.project_id.iter().map(|p| Index::multi("project", p)));
        all
    }
}

/// One thing that a restricted application credential may be used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRule {
    /// The id.
    pub id: String,
    /// The user it belongs to.
    pub user_id: String,
    /// The service's type, as `compute`.
    pub service: String,
    /// The HTTP method.
    pub method: String,
    /// The path below the service: `*` stands for one element, `**` for any rest, `{name}` for one element.
    pub path: String,
}

impl Record for AccessRule {
    const KIND: &'static str = "identity/access-rule";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::multi("user", &self.user_id)]
    }
}

/// A secret that a program authenticates with in place of the user's password. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ApplicationCredential {
    /// The id.
    pub id: String,
    /// The name, unique for the user.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whose it is.
    pub user_id: String,
    /// The project its tokens are scoped to.
    pub project_id: String,
    /// The ids of the roles its tokens have (as far as the user still has them).
    pub roles: Vec<String>,
    /// Whether its tokens may make more application credentials and trusts.
    pub unrestricted: bool,
    /// When it ends, in microseconds since the epoch.
    pub expires_us: Option<i64>,
    /// The hash of the secret: hex SHA-256, as the secret is long and random when it is ours.
    pub secret_sha256: String,
    /// The argon2 PHC string of a secret the user chose.
    pub secret_phc: Option<String>,
    /// The ids of the access rules; empty for no restriction.
    pub access_rules: Vec<String>,
}

impl Record for ApplicationCredential {
    const KIND: &'static str = "identity/application-credential";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![
            Index::unique("name", format!("{}:{}", self.user_id, self.name)),
            Index::multi("user", &self.user_id),
            Index::multi("project", &self.project_id),
        ]
    }
}
