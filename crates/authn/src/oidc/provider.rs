//! An identity provider: its discovery document and current keys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{StatusCode, Uri};
use nave_machinery::Value;
use nave_webhook::{Client, parse_answer};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::jwt::{Claims, PublicKey, Unverified};

/// The minimum interval between two fetches of a provider's keys. Clients cannot shorten it.
const REFRESH: Duration = Duration::from_secs(1);
/// The maximum number of keys of a provider.
const MAX_KEYS: usize = 256;

/// An identity provider. Its keys are fetched only when no known key verifies a token.
pub(super) struct Provider {
    issuer: String,
    configuration: Uri,
    client: Client,
    known: Mutex<Known>,
    /// A semaphore with one permit. The holder fetches the keys; other tasks wait for the result.
    turn: Semaphore,
}

#[derive(Default)]
struct Known {
    jwks_uri: Option<Uri>,
    keys: Arc<[PublicKey]>,
    /// Counts successful fetches.
    generation: u64,
    /// The time of the last fetch.
    last_fetch: Option<Instant>,
}

impl Provider {
    /// The provider of an issuer; `discovery` overrides the usual URL of the discovery document.
    pub(super) fn new(issuer: &str, discovery: Option<&str>, client: Client) -> Result<Self, http::Error> {
        let usual = || format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let address = discovery.filter(|url| !url.is_empty()).map_or_else(usual, str::to_owned);
        Ok(Self {
            issuer: issuer.to_owned(),
            configuration: address.parse().map_err(http::Error::from)?,
            client,
            known: Mutex::default(),
            turn: Semaphore::new(1),
        })
    }

    /// Verifies a token and returns its claims. If no known key verifies the token, fetches the keys again, because
    /// providers rotate keys.
    pub(super) async fn verify(&self, token: &str) -> Result<Claims, String> {
        let (keys, seen) = self.keys();
        if let Some(claims) = verified(token, &keys) {
            return Ok(claims);
        }
        self.refresh(seen).await?;
        let (keys, _) = self.keys();
        verified(token, &keys).ok_or_else(|| "failed to verify signature".to_owned())
    }

    fn keys(&self) -> (Arc<[PublicKey]>, u64) {
        let known = self.known.lock();
        (Arc::clone(&known.keys), known.generation)
    }

    /// Fetches the keys, unless another task has fetched them since generation `seen` or within [`REFRESH`].
    async fn refresh(&self, seen: u64) -> Result<(), String> {
        let _turn = self.turn.acquire().await.map_err(|_| "authenticator not initialized".to_owned())?;
        {
            let mut known = self.known.lock();
            if known.generation != seen {
                return Ok(());
            }
            if known.last_fetch.is_some_and(|last| last.elapsed() < REFRESH) {
                let never = seen == 0;
                return if never { Err("authenticator not initialized".to_owned()) } else { Ok(()) };
            }
            known.last_fetch = Some(Instant::now());
        }
        let fetched = self.fetch_keys().await;
        if let Err(error) = &fetched {
            tracing::warn!(issuer = self.issuer, %error, "fetching OIDC provider keys failed");
        }
        fetched
    }

    async fn fetch_keys(&self) -> Result<(), String> {
        let address = self.known.lock().jwks_uri.clone();
        let address = match address {
            Some(address) => address,
            None => self.discover().await?,
        };
        let set = self.get(&address).await?;
        let listed =
            set.get("keys").and_then(Value::as_array).ok_or("the provider's response is not a key set")?;
        let keys: Arc<[PublicKey]> = listed.iter().take(MAX_KEYS).filter_map(PublicKey::from_jwk).collect();
        let mut known = self.known.lock();
        known.jwks_uri = Some(address);
        known.keys = keys;
        known.generation += 1;
        Ok(())
    }

    async fn discover(&self) -> Result<Uri, String> {
        let found = self.get(&self.configuration).await?;
        let text = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("issuer") != self.issuer {
            return Err(format!(
                "issuer did not match the issuer returned by provider, expected {:?} got {:?}",
                self.issuer,
                text("issuer")
            ));
        }
        let address: Uri = text("jwks_uri").parse().map_err(|_| "the provider's jwks_uri is not a URL")?;
        if address.scheme_str() != Some("https") {
            return Err("the provider's jwks_uri is not an https URL".to_owned());
        }
        Ok(address)
    }

    async fn get(&self, address: &Uri) -> Result<Value, String> {
        let answer = self.client.get(address).await.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!("the provider answered with status {}", answer.status));
        }
        parse_answer(&answer.body).map_err(|error| format!("the provider's answer {error}"))
    }
}

/// Verifies with the key that the token names, or with each key if it names none.
fn verified(token: &str, keys: &[PublicKey]) -> Option<Claims> {
    let token = Unverified::parse(token)?;
    let named = token.key_id.clone();
    token.verify(keys.iter().filter(|key| named.is_empty() || key.id.is_empty() || key.id == named))
}
