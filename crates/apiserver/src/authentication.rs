//! The authentication stage: determines the user of a request.

use http::HeaderMap;
use nave_authn::{ANONYMOUS, AuthnError, Chain, Credentials};

use crate::context::{Client, RequestContext};

/// The authenticators, in order.
pub struct Authentication(pub Chain);

impl Authentication {
    /// Sets the user of the request. Removes the credentials, so that later stages cannot derive the user from a
    /// header.
    ///
    /// # Errors
    /// 401 if the request has credentials but none is valid.
    pub(crate) async fn run(
        &self,
        context: &mut RequestContext,
        headers: &mut HeaderMap,
    ) -> Result<(), AuthnError> {
        let user = match &context.client {
            Client::Process(user) => user.clone(),
            Client::Remote(connection) => {
                let (peer, path) = (context.client.certificate(), &context.info.path);
                let identity = self.0.authenticate(&Credentials { peer, headers, path }).await?;
                for (key, value) in identity.annotations {
                    // A valid key with one value.
                    let _ = context.notes.annotate(key, value);
                }
                let user = identity.user;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Request;
    use nave_machinery::user::UserInfo;

    use super::*;

    async fn user(client: Client, chain: Chain) -> Result<String, AuthnError> {
        let request = Request::get("/api").header("x-remote-user", "root").body(()).unwrap();
        let mut context = RequestContext::new(&request, client);
        let mut headers = request.into_parts().0.headers;
        Authentication(chain).run(&mut context, &mut headers).await?;
        assert!(headers.is_empty(), "no header names a user any more");
        Ok(context.user().name.clone())
    }

    #[tokio::test]
    async fn requests_of_the_process_need_no_credentials_and_others_do() {
        let no_authenticators = || Chain::new(Vec::new());
        let own = Client::Process(Arc::new(UserInfo { name: "own".to_owned(), ..UserInfo::default() }));
        assert_eq!(user(own, no_authenticators()).await.unwrap(), "own");
        assert!(user(Client::Remote(None), no_authenticators()).await.is_err());
        assert_eq!(
            user(Client::Remote(None), no_authenticators().with_anonymous()).await.unwrap(),
            ANONYMOUS
        );
    }
}
