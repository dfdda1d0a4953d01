//! [`Proxy`]: a way to the server that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;

use kube::config::Kubeconfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::{Server, ok};

/// Passes bytes on to a server, until it is cut: then connections break, and new ones do as soon as they are made.
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
    /// A way to `server`.
    pub async fn to(server: &Server) -> Self {
        let listener = ok(TcpListener::bind("127.0.0.1:0").await, "the proxy's port");
        let address = ok(listener.local_addr(), "the proxy's address");
        let state = Arc::new(watch::Sender::new(State { server: address_of(server), is_cut: false }));
        let task = tokio::spawn(accept(listener, Arc::clone(&state))).abort_handle();
        Self { address, state, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks all connections, and all that are made from now on.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.is_cut = true);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.state.send_modify(|state| state.is_cut = false);
    }

    /// Leads to where `server` is now.
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
        // That a connection breaks is what this is for.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}

fn address_of(server: &Server) -> SocketAddr {
    let file = ok(Kubeconfig::read_from(server.kubeconfig()), "the kubeconfig");
    let cluster = file.clusters.into_iter().find_map(|named| named.cluster?.server);
    let url = cluster.unwrap_or_default();
    ok(url.trim_start_matches("https://").parse(), "the server's address")
}
