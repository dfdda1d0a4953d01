//! Authentication as a stage: the user of a request.

use http::HeaderMap;
use nave_authn::{ANONYMOUS, AuthnError, Chain, Credentials};

use crate::context::{Client, RequestContext};

/// The authenticators, in their order.
pub struct Authentication(pub Chain);

impl Authentication {
    /// Sets the user of the request, and removes its credentials: no stage after this one finds the user in a header.
    ///
    /// # Errors
    /// 401 where the request has credentials and all of them are wrong.
    pub(crate) async fn run(
        &self,
        context: &mut RequestContext,
        headers: &mut HeaderMap,
    ) -> Result<(), AuthnError> {
        let user = match &context.client {
            Client::Process(user) => user.clone(),
            Client::Remote(connection) => {
                let (peer, path) = (context.client.certificate(), &context.info.path);
                let user = self.0.authenticate(&Credentials { peer, headers, path }).await?.user;
                if let Some(connection) = connection.as_ref().filter(|_| user.name != ANONYMOUS) {
                    connection.mark_authenticated();
                }
                user
            }
        };
        context.set_user(user);
        self.0.strip(headers);
        Ok(())
    }
}
