//! AgentSecurityPolicies and calls of which not everything is known; and who has which role.

use super::Governance;
use crate::authz::reach::{Known, Reach};
use crate::authz::{Judgement, Principal};

impl Governance {
    /// How far such calls get.
    pub(in crate::authz) fn reach(&self, known: &Known<'_>) -> Reach {
        if self.by.is_empty() {
            return Reach::Yes;
        }
        let asking = known.asking;
        if self.authentication.iter().any(|methods| !methods.certificate) {
            // Only with a token.
            return Reach::Some;
        }
        if known.is_whole() && !self.declarations.reads_headers() {
            let refused = self.decide(asking, Judgement::default()).deny.is_some();
            let by_token = self.roles.has_tokens() && self.rbac;
            return if refused && by_token { Reach::Some } else { Reach::of(!refused) };
        }
        let mut roles = 0;
        self.each_role(asking, None, &mut |_| roles += 1);
        if self.rbac && roles == 0 {
            return if self.roles.has_tokens() { Reach::Some } else { Reach::No };
        }
        let all = !self.rbac || self.may_all(asking, None);
        let clearance = asking.who.principal.map_or(0, |own| self.clearance_of(own));
        let sees_all = self.levels.is_empty()
            || clearance == self.highest()
                && !self.classification_required
                && self.classifications.is_empty();
        if all && sees_all { Reach::Yes } else { Reach::Some }
    }

    /// The roles of an agent, `namespace/policy role NAME`.
    pub fn roles_of(&self, principal: &Principal) -> Vec<&str> {
        let mut places = Vec::new();
        self.roles.of_principal(principal, &mut |role| places.push(role.by.to_string()));
        self.named(&places)
    }

    /// Those of them that give a permission on a resource.
    pub fn roles_giving(&self, principal: &Principal, permission: &str, resource: &str) -> Vec<&str> {
        let needed = permission.split_once(':').unwrap_or((permission, ""));
        let mut places = Vec::new();
        self.roles.of_principal(principal, &mut |role| {
            if role.gives(needed, resource) {
                places.push(role.by.to_string());
            }
        });
        self.named(&places)
    }

    fn named(&self, names: &[String]) -> Vec<&str> {
        let all = self.roles.roles.iter().map(|role| &*role.by);
        all.filter(|by| names.iter().any(|name| name == by)).collect()
    }

    /// Whether calls need permissions.
    pub fn is_rbac(&self) -> bool {
        self.rbac
    }
}
