//! The interfaces that the program runs on, and the VLANs on them.
//!
//! XDP sees a frame of a VLAN on the interface beneath, tagged, and sends it there; routes,
//! neighbours and addresses are the VLAN interface's. A VLAN of a VLAN (QinQ) is the most that
//! there is.

use anyhow::{Context, Result};
use seawall_control::config::Config;
use seawall_datapath::netlink::ethtool::{Offload, offload};
use seawall_datapath::netlink::{Link, Netlink};
use seawall_engine::Interface;
use seawall_wire::ethernet::{EtherType, MacAddr, Tags};

use super::setup::fail_on;

/// An interface that frames leave by.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) link: Link,
    /// The interface that the program runs on: this one, or the one beneath the VLAN.
    device: u32,
    tags: Tags,
}

/// All of them: first those that the file names, in its order, then the VLANs.
#[derive(Clone, Debug)]
pub(super) struct Interfaces(Vec<Port>);

impl Port {
    /// Whether the program runs on this interface itself.
    pub(super) const fn is_attached(&self) -> bool {
        self.device == self.link.index
    }

    /// What the engine must know of it.
    pub(super) const fn interface(&self) -> Interface {
        let mac = MacAddr(self.link.mac);
        Interface { mac, mtu: self.link.mtu, device: self.device, tags: self.tags }
    }
}

impl Interfaces {
    /// Those that `config` names and the VLANs that the host has on them.
    ///
    /// # Errors
    /// One that does not exist, and one with VLANs whose card takes the tags away before XDP sees
    /// them.
    pub(super) fn find(config: &Config, netlink: &mut Netlink) -> Result<Self> {
        let all = netlink.links().context("reading the interfaces")?;
        let mut errors = Vec::new();
        let mut ports = Vec::new();
        for interface in &config.interfaces {
            match all.iter().find(|link| link.name == interface.value) {
                Some(link) => {
                    ports.push(Port { link: link.clone(), device: link.index, tags: Tags::NONE });
                }
                None => errors.push(config.error_at(
                    interface.line,
                    format!("there is no interface `{}`", interface.value),
                    "name one that `ip link` lists",
                )),
            }
        }
        fail_on(errors)?;
        let mut interfaces = Self(ports);
        // Twice: once for VLANs, once for the VLANs on them, whichever the kernel lists first.
        for _ in 0..2 {
            for link in &all {
                interfaces.add_vlan(link);
            }
        }
        fail_on(interfaces.stripped(config))?;
        fail_on(interfaces.renamed(config))?;
        Ok(interfaces)
    }

    fn add_vlan(&mut self, link: &Link) {
        let Some(vlan) = &link.vlan else { return };
        if self.get(link.index).is_some() {
            return;
        }
        let Some(beneath) = self.get(vlan.lower) else { return };
        let tag = Tags::word(EtherType(vlan.ethertype), vlan.id);
        if let Some(tags) = beneath.tags.with(tag) {
            let device = beneath.device;
            self.0.push(Port { link: link.clone(), device, tags });
        }
    }

    /// Interfaces with VLANs whose tags XDP would not see.
    fn stripped(&self, config: &Config) -> Vec<seawall_control::config::ConfigError> {
        let has_vlans = |port: &Port| {
            self.0.iter().any(|other| other.device == port.device && !other.is_attached())
        };
        // A driver that does not tell has no such offload.
        let strips =
            |port: &Port| offload(&port.link.name, Offload::VlanReceive).is_ok_and(|strips| strips);
        let named = self.0.iter().zip(&config.interfaces);
        named
            .filter(|(port, _)| has_vlans(port) && strips(port))
            .map(|(port, interface)| {
                let name = &port.link.name;
                config.error_at(
                    interface.line,
                    format!(
                        "`{name}` carries VLANs, and takes their tags away before XDP sees them"
                    ),
                    format!("run `ethtool -K {name} rxvlan off`"),
                )
            })
            .collect()
    }

    /// VLANs with a MAC of their own, for which XDP, which sees the interface beneath, takes no
    /// frames.
    fn renamed(&self, config: &Config) -> Vec<seawall_control::config::ConfigError> {
        let named = self.0.iter().zip(&config.interfaces);
        named
            .flat_map(|(port, interface)| {
                let of = move |vlan: &&Port| vlan.device == port.device;
                let differs = move |vlan: &&Port| vlan.link.mac != port.link.mac;
                self.0.iter().filter(of).filter(differs).map(move |vlan| {
                    let (name, device) = (&vlan.link.name, &port.link.name);
                    config.error_at(
                        interface.line,
                        format!("`{name}` has another MAC address than `{device}` beneath it"),
                        format!("give it the same with `ip link set {name} address`"),
                    )
                })
            })
            .collect()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Port> {
        self.0.iter()
    }

    /// Those that the program runs on.
    pub(super) fn attached(&self) -> impl Iterator<Item = &Link> {
        self.0.iter().filter(|port| port.is_attached()).map(|port| &port.link)
    }

    /// The one with this number.
    pub(super) fn get(&self, index: u32) -> Option<&Port> {
        self.0.iter().find(|port| port.link.index == index)
    }

    /// Takes note of what one of them has become; gives it.
    pub(super) fn update(&mut self, link: &Link) -> Option<&Port> {
        let port = self.0.iter_mut().find(|port| port.link.index == link.index)?;
        port.link = link.clone();
        Some(port)
    }
}
