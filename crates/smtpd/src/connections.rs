//! How many connections each client holds: `smtpd_client_connection_count_limit`.
//!
//! Counted within this process, which serves all sessions of its service. Rates over time are anvil's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The connections of every client that has any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// One connection, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    connections: Connections,
    ip: IpAddr,
    /// How many the client has, this one included.
    pub(crate) number: u32,
}

impl Connections {
    /// Counts a connection from this address.
    pub(crate) fn count(&self, ip: IpAddr) -> Counted {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = clients.entry(ip).or_insert(0);
        *number += 1;
        Counted { connections: self.clone(), ip, number: *number }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut clients = self.connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = clients.get_mut(&self.ip) {
            *number -= 1;
            if *number == 0 {
                clients.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_while_they_last() {
        let connections = Connections::default();
        let ip = "192.0.2.1".parse().unwrap();
        let first = connections.count(ip);
        assert_eq!(connections.count(ip).number, 2);
        assert_eq!(connections.count(ip).number, 2);
        drop(first);
        assert!(connections.0.lock().unwrap().is_empty());
    }
}
