//! What a node that wants to join says and checks. Pure: nonces are given, messages are values.

use cairn_wire::remote::{PeerId, Standing, TrustSet, trust};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::desk::{application_hash, offer_hash};
use super::messages::{Answer, Application, Begin, Cloud, Offer, Reveal};
use crate::handshake::{Agreement, Bytes32, Scene, Side, TokenProof, commitment};
use crate::membership::Belonging;
use crate::token::Token;
use crate::words::Words;

/// Why a node breaks off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// What the other side says cannot be read.
    #[error("the node that was asked is not understood: {0}")]
    Garbled(String),
    /// It let this node in by a token without having it.
    #[error("the node that was asked does not have the token: it is not of the cloud that the token is of")]
    TokenUnknown,
    /// What it gave does not fit together.
    #[error("what the cloud gave does not fit: {0}")]
    Misfit(&'static str),
}

/// A node that has begun.
pub struct Begun {
    me: PeerId,
    nonce: Bytes32,
    application: Bytes32,
}

/// Begins: what to send to `join/begin`.
pub fn begin(me: PeerId, application: &Application, nonce: Bytes32) -> Result<(Begun, Begin), Doubt> {
    let application = postcard::to_stdvec(application).map_err(|e| Doubt::Garbled(e.to_string()))?;
    let hashed = application_hash(&application);
    let commitment = commitment(&nonce, &me, &hashed);
    Ok((Begun { me, nonce, application: hashed }, Begin { application, commitment }))
}

/// A node that knows what it was offered.
#[derive(Debug, Clone)]
pub struct Offered {
    me: PeerId,
    acceptor: PeerId,
    cloud: Cloud,
    agreement: Agreement,
    token: Option<Token>,
}

impl Begun {
    /// Takes the offer of the node whose key TLS showed: what to send to `join/reveal`.
    pub fn offered(
        self,
        acceptor: PeerId,
        version: u16,
        offer: &Offer,
        token: Option<&Token>,
    ) -> Result<(Offered, Reveal), Doubt> {
        let read = postcard::take_from_bytes::<Cloud>(&offer.cloud);
        let (cloud, _) = read.map_err(|e| Doubt::Garbled(e.to_string()))?;
        let scene = Scene {
            version,
            applicant: self.me,
            acceptor,
            application: self.application,
            offer: offer_hash(&offer.cloud),
        };
        let agreement = Agreement::of_applicant(&scene, &self.nonce, &offer.nonce);
        let proof = token.map(|token| TokenProof {
            token: token.id().to_owned(),
            proof: agreement.proof(&token.key(), Side::Applicant),
        });
        let offered = Offered { me: self.me, acceptor, cloud, agreement, token: token.cloned() };
        Ok((offered, Reveal { nonce: self.nonce, token: proof }))
    }
}

impl Offered {
    /// The words to show.
    pub fn words(&self) -> Words {
        self.agreement.words()
    }

    /// The cloud that is asked.
    pub fn cloud(&self) -> &str {
        &self.cloud.id
    }

    /// The node that is asked.
    pub fn acceptor(&self) -> PeerId {
        self.acceptor
    }

    /// Checks the answer to `join/reveal`: gives what makes this node a member, if it was let in.
    pub fn answered(&self, answer: &Answer) -> Result<(), Doubt> {
        let Answer::Admitted { belonging, proof } = answer else { return Ok(()) };
        if let Some(token) = &self.token {
            let proven = proof.is_some_and(|p| self.agreement.proves(&token.key(), Side::Acceptor, &p));
            // Who let this node in by another way than the token it was given is not whom it was sent to.
            if !proven {
                return Err(Doubt::TokenUnknown);
            }
        }
        if belonging.authority != self.cloud.authority {
            return Err(Doubt::Misfit("another authority than was offered"));
        }
        self.fits(belonging)
    }

    /// Checks the answer to `join/status`, when the authority may be another by now.
    pub fn answered_later(&self, answer: &Answer) -> Result<(), Doubt> {
        match answer {
            Answer::Admitted { belonging, .. } => self.fits(belonging),
            _ => Ok(()),
        }
    }

    fn fits(&self, belonging: &Belonging) -> Result<(), Doubt> {
        let holds = |id| belonging.members.iter().any(|pin| pin.id == id);
        if belonging.cloud != self.cloud.id {
            return Err(Doubt::Misfit("another cloud than was offered"));
        }
        if !holds(self.acceptor) || !holds(self.me) {
            return Err(Doubt::Misfit("one of the two nodes is not a member"));
        }
        let authorities = vec![CertificateDer::from(belonging.authority.0.clone())];
        let set = TrustSet { authorities, ..TrustSet::default() };
        let certificate = belonging.certificate.der();
        // Whether it has expired is of no interest here, and this node's clock may be wrong.
        let issued = u64::try_from(belonging.certificate.issued_s).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(issued));
        match (trust::id_of(&certificate), trust::standing(&set, &certificate, at)) {
            (Ok(id), Ok(Standing::Certified)) if id == self.me => Ok(()),
            _ => Err(Doubt::Misfit("the certificate is not this node's, or not by the authority")),
        }
    }
}

#[cfg(test)]
#[path = "applicant_tests.rs"]
mod tests;
