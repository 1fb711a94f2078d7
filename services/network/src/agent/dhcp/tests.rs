//! The DHCP server's answers, message by message.

use super::*;

fn client() -> Client {
    Client {
        address: "10.0.0.10/24".parse().unwrap(),
        server: Ipv4Addr::new(10, 0, 0, 2),
        router: Some(Ipv4Addr::new(10, 0, 0, 1)),
        dns: vec![Ipv4Addr::new(10, 0, 0, 2)],
        routes: vec![("0.0.0.0/0".parse().unwrap(), Ipv4Addr::new(10, 0, 0, 1))],
        mtu: 1450,
        hostname: "web".into(),
        domain: "example.org".into(),
        options: vec![("bootfile-name".into(), "pxe.0".into()), ("42".into(), "10.0.0.9".into())],
    }
}

fn scope() -> Scope {
    Scope { device: "ns0".into(), clients: BTreeMap::from([(Mac([2, 0, 0, 0, 0, 1]), client())]) }
}

fn request(kind: MessageType) -> Message {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(7, none, none, none, none, &[2, 0, 0, 0, 0, 1]);
    message.opts_mut().insert(DhcpOption::MessageType(kind));
    message
}

#[test]
fn a_known_client_is_offered_its_own_address() {
    let answer = answer(&scope(), &request(MessageType::Discover)).unwrap();
    assert_eq!(answer.to, Ipv4Addr::BROADCAST);
    assert_eq!(answer.message.opts().msg_type(), Some(MessageType::Offer));
    assert_eq!(answer.message.yiaddr(), Ipv4Addr::new(10, 0, 0, 10));
    assert_eq!(answer.message.xid(), 7);
    assert_eq!(answer.message.fname_str().unwrap().unwrap(), "pxe.0");
    let opts = answer.message.opts();
    assert_eq!(opts.get(OptionCode::InterfaceMtu), Some(&DhcpOption::InterfaceMtu(1450)));
    assert_eq!(
        opts.get(OptionCode::SubnetMask),
        Some(&DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)))
    );
    assert!(opts.get(OptionCode::ClasslessStaticRoute).is_some() && opts.contains(OptionCode::NtpServers));
}

#[test]
fn the_wrong_address_is_refused_aloud() {
    let mut wrong = request(MessageType::Request);
    wrong.opts_mut().insert(DhcpOption::RequestedIpAddress(Ipv4Addr::new(10, 0, 0, 11)));
    let answer = answer(&scope(), &wrong).unwrap();
    assert_eq!(answer.message.opts().msg_type(), Some(MessageType::Nak));
    assert_eq!((answer.to, answer.message.yiaddr()), (Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED));
}

#[test]
fn a_renewal_is_acknowledged_to_the_address_itself() {
    let mut renew = request(MessageType::Request);
    renew.set_ciaddr(Ipv4Addr::new(10, 0, 0, 10));
    let answer = answer(&scope(), &renew).unwrap();
    assert_eq!(answer.message.opts().msg_type(), Some(MessageType::Ack));
    assert_eq!(answer.to, Ipv4Addr::new(10, 0, 0, 10));
}

#[test]
fn silence_for_strangers_relays_other_servers_and_releases() {
    let mut stranger = request(MessageType::Discover);
    stranger.set_chaddr(&[2, 0, 0, 0, 0, 9]);
    let mut relayed = request(MessageType::Discover);
    relayed.set_giaddr(Ipv4Addr::new(10, 0, 0, 3));
    let mut other = request(MessageType::Request);
    other.opts_mut().insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 0, 0, 3)));
    for message in [stranger, relayed, other, request(MessageType::Release), request(MessageType::Decline)] {
        assert_eq!(answer(&scope(), &message), None);
    }
}

#[test]
fn informing_gives_no_lease() {
    let mut inform = request(MessageType::Inform);
    inform.set_ciaddr(Ipv4Addr::new(10, 0, 0, 10));
    let answer = answer(&scope(), &inform).unwrap();
    assert_eq!(answer.message.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert!(!answer.message.opts().contains(OptionCode::AddressLeaseTime));
}
