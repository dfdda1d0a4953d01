//! The way to etcd, through a proxy if the flags say so.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nave_store::etcd::{Dial, Dialer, MemberStream};
use nave_webhook::{AddressPolicy, Egress};

/// Maximum time of a connection. The engine has a limit of its own, usually a shorter one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the dialer of an engine. Direct connections are the engine's own.
pub(super) fn dialer(egress: &Egress) -> Dialer {
    match egress {
        Egress::Direct => Dialer::default(),
        Egress::Proxy(_) | Egress::Tunnel(_) => Dialer::new(Arc::new(Proxied(egress.clone()))),
    }
}

struct Proxied(Egress);

impl Dial for Proxied {
    fn dial(&self, host: String, port: u16) -> BoxFuture<'static, Result<Box<dyn MemberStream>, String>> {
        let egress = self.0.clone();
        let connecting = async move {
            // The administrator chooses the members.
            let stream = egress.connect(&host, port, AddressPolicy::Unicast, PATIENCE).await;
            stream.map(|stream| Box::new(stream) as Box<dyn MemberStream>).map_err(|error| error.to_string())
        };
        connecting.boxed()
    }
}
