//! Client addresses, as limits and quotas count them.
//!
//! Only the first 64 bits of an IPv6 address count, since one household has all addresses of such a network. So every
//! address is one word; IPv4 is in a range that IPv6 keeps reserved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(u64);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

impl From<Ipv4Addr> for Address {
    /// An address in `::/32`, which has no public IPv6 addresses.
    fn from(address: Ipv4Addr) -> Self {
        Self(address.to_bits().into())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        Self(address.octets().first_chunk().map_or(0, |network| u64::from_be_bytes(*network)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn ipv6_counts_by_its_64_bit_network_and_ipv4_by_the_whole_address() {
        assert_eq!(address("2001:db8:1:2::3"), address("2001:db8:1:2:ffff::"));
        assert_ne!(address("2001:db8:1:2::3"), address("2001:db8:1:3::3"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("::1"), address("127.0.0.1"));
    }
}
