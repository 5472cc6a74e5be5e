//! A host: a smoltcp stack behind an Ethernet card.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::IpAddr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::support::family::Family;
use crate::support::packet::Ip;

thread_local! {
    /// What the hosts' timestamp clocks read: smoltcp asks a plain function.
    static CLOCK: Cell<u64> = const { Cell::new(0) };
}

/// Where a host is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) family: Family,
    pub(crate) address: Ip,
    pub(crate) mac: [u8; 6],
    /// The balancer's card on its link.
    pub(crate) gateway: [u8; 6],
    pub(crate) mtu: usize,
    pub(crate) seed: u64,
}

#[derive(Debug)]
struct Card {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
    mtu: usize,
}

pub(crate) struct Host {
    place: Place,
    card: Card,
    interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
}

/// The buffers of a socket and the options it offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    pub(crate) receive: usize,
    pub(crate) send: usize,
    pub(crate) timestamps: bool,
    /// How long it waits for an answer, in milliseconds, before it gives up.
    pub(crate) patience: u64,
}

fn instant(now: u64) -> Instant {
    Instant::from_millis(now as i64)
}

fn client_clock() -> u32 {
    CLOCK.get() as u32
}

fn server_clock() -> u32 {
    (CLOCK.get() as u32).wrapping_add(0xfff0_0000)
}

impl Host {
    pub(crate) fn new(place: Place, now: u64) -> Self {
        let mut card = Card { received: VecDeque::new(), sent: VecDeque::new(), mtu: place.mtu };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = place.seed;
        let mut interface = Interface::new(config, &mut card, instant(now));
        let address = IpAddr::from(place.address);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address.into(), 0)).expect("room for one");
        });
        Self { place, card, interface, sockets: SocketSet::new(Vec::new()) }
    }

    /// Adds a closed socket.
    pub(crate) fn add(&mut self, tuning: &Tuning, is_server: bool) -> SocketHandle {
        let buffer = |len| SocketBuffer::new(vec![0; len]);
        let mut socket = Socket::new(buffer(tuning.receive), buffer(tuning.send));
        if tuning.timestamps {
            socket.set_tsval_generator(Some(if is_server { server_clock } else { client_clock }));
        }
        socket.set_timeout(Some(Duration::from_millis(tuning.patience)));
        self.sockets.add(socket)
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Opens a connection from `port`.
    pub(crate) fn connect(&mut self, handle: SocketHandle, port: u16, to: (Ip, u16)) {
        let address = IpAddress::from(IpAddr::from(to.0));
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        socket.connect(self.interface.context(), (address, to.1), port).expect("a closed socket");
    }

    /// Takes a frame from the link, if it is for this host.
    pub(crate) fn receive(&mut self, frame: &[u8]) {
        assert_eq!(frame[..6], self.place.mac, "another host's MAC");
        let rest = [&self.place.gateway[..], &self.place.family.ethertype()].concat();
        assert_eq!(frame[6..14], rest, "not our gateway's");
        self.card.received.push_back(frame[14..].to_vec());
    }

    /// Lets the stack do what it wants at `now`; gives the frames that it sends.
    pub(crate) fn poll(&mut self, now: u64) -> Vec<Vec<u8>> {
        CLOCK.set(now);
        self.interface.poll(instant(now), &mut self.card, &mut self.sockets);
        let ethertype = self.place.family.ethertype();
        let header = [&self.place.gateway[..], &self.place.mac, &ethertype].concat();
        self.card.sent.drain(..).map(|packet| [&header[..], &packet].concat()).collect()
    }

    /// When [`Self::poll`] is wanted if nothing comes.
    pub(crate) fn next_poll(&mut self, now: u64) -> u64 {
        let at = self.interface.poll_at(instant(now), &self.sockets);
        at.map_or(u64::MAX, |at| at.total_millis() as u64)
    }
}

pub(crate) struct Received(Vec<u8>);

pub(crate) struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sent<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}
