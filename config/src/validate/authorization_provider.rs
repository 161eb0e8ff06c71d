//! AuthorizationProvider.

use crate::model::{AuthorizationProvider, Meta};
use crate::raw::AuthorizationProviderSpec;

use super::check::Cx;

/// Reads one.
pub(super) fn authorization_provider(
    _cx: &mut Cx<'_>,
    meta: Meta,
    _spec: &AuthorizationProviderSpec<'_>,
) -> Option<AuthorizationProvider> {
    Some(AuthorizationProvider { meta })
}
