//! [`Proxy`]: a TCP proxy that can drop connections.

use std::net::SocketAddr;
use std::sync::Arc;

use kube::config::Kubeconfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::{Server, ok};

/// Forwards connections to a server. While the proxy is cut, it closes existing and new connections.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    task: AbortHandle,
}

#[derive(Clone, Copy)]
struct State {
    server: SocketAddr,
    is_cut: bool,
}

impl Proxy {
    /// Starts a proxy to `server`.
    pub async fn to(server: &Server) -> Self {
        let listener = ok(TcpListener::bind("127.0.0.1:0").await, "the proxy's port");
        let address = ok(listener.local_addr(), "the proxy's address");
        let state = Arc::new(watch::Sender::new(State { server: address_of(server), is_cut: false }));
        let task = tokio::spawn(accept(listener, Arc::clone(&state))).abort_handle();
        Self { address, state, task }
    }

    /// Returns the address of the proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all existing and new connections.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.is_cut = true);
    }

    /// Forwards connections again.
    pub fn mend(&self) {
        self.state.send_modify(|state| state.is_cut = false);
    }

    /// Switches to the current address of `server`.
    pub fn turn_to(&self, server: &Server) {
        self.state.send_modify(|state| state.server = address_of(server));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<watch::Sender<State>>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut state = state.subscribe();
        let State { server, is_cut } = *state.borrow_and_update();
        if !is_cut {
            tokio::spawn(async move {
                tokio::select! {
                    () = pass(client, server) => {}
                    _ = state.wait_for(|state| state.is_cut || state.server != server) => {}
                }
            });
        }
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(server).await {
        // Broken connections are expected.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}

fn address_of(server: &Server) -> SocketAddr {
    let file = ok(Kubeconfig::read_from(server.kubeconfig()), "the kubeconfig");
    let cluster = file.clusters.into_iter().find_map(|named| named.cluster?.server);
    let url = cluster.unwrap_or_default();
    ok(url.trim_start_matches("https://").parse(), "the server's address")
}
