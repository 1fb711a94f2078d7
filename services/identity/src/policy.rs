//! Who may do what here. Admins may do all; others what is their own. Pure: all decisions in one place.
//!
//! `admin` is the role of that name, on whatever the token is scoped to, as in OpenStack's default policies before
//! scope enforcement.

use cairn_gateway::{ApiError, Caller};

/// A user's own record, secrets and lists.
pub fn require_self(caller: &Caller, user_id: &str) -> Result<(), ApiError> {
    allow(caller.is_admin() || caller.user_id == user_id)
}

/// Who may make secrets in a user's name: only the user, not even an admin.
pub fn require_exactly(caller: &Caller, user_id: &str) -> Result<(), ApiError> {
    allow(caller.user_id == user_id)
}

/// Reading what a domain owns: an admin, or anybody with a token for the domain.
pub fn require_domain_reader(caller: &Caller, domain_id: &str) -> Result<(), ApiError> {
    allow(caller.is_admin() || caller.domain_id.as_deref() == Some(domain_id))
}

/// The domain to which a listing is confined: none for an admin, the token's own for a domain's, else 403.
pub fn listing_domain(caller: &Caller) -> Result<Option<&str>, ApiError> {
    if caller.is_admin() {
        return Ok(None);
    }
    caller.domain_id.as_deref().map(Some).ok_or_else(refused)
}

fn allow(is_allowed: bool) -> Result<(), ApiError> {
    if is_allowed { Ok(()) } else { Err(refused()) }
}

fn refused() -> ApiError {
    ApiError::forbidden("You are not authorized to perform the requested action.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: &str, domain: Option<&str>) -> Caller {
        Caller {
            user_id: "u".into(),
            user_name: "ann".into(),
            user_domain_id: "default".into(),
            project_id: String::new(),
            project_name: String::new(),
            project_domain_id: String::new(),
            domain_id: domain.map(str::to_owned),
            roles: [role.to_owned()].into(),
            audit_id: String::new(),
        }
    }

    #[test]
    fn own_things_are_ones_own_and_secrets_are_nobody_elses() {
        let (user, admin) = (caller("member", None), caller("admin", None));
        assert!(require_self(&user, "u").is_ok() && require_self(&user, "v").is_err());
        assert!(require_self(&admin, "v").is_ok() && require_exactly(&admin, "v").is_err());
    }

    #[test]
    fn a_domains_token_reads_its_domain() {
        let reader = caller("reader", Some("d"));
        assert!(require_domain_reader(&reader, "d").is_ok() && require_domain_reader(&reader, "e").is_err());
        assert_eq!(listing_domain(&reader).unwrap(), Some("d"));
        assert!(listing_domain(&caller("member", None)).is_err());
        assert_eq!(listing_domain(&caller("admin", None)).unwrap(), None);
    }
}
