//! Answers a SYN from the SYN alone (SPEC A1 to A3, seed section 4.2.1).

use seawall_wire::tcp::Flags;
use seawall_wire::{SeqNumber, ipv4};

use crate::cookie::{self, Claim, Offer};
use crate::family::Family;
use crate::layout::{NO_SCALE, ServiceEntry, Settings, switch};
use crate::options::{self, Timestamps};
use crate::packet::Packet;
use crate::segment::{self, Segment, SynOptions};
use crate::{Frame, Reason, Tuple};

/// Largest window that a SYN/ACK can offer: it is never scaled (RFC 7323, section 2.2).
const MAX_WINDOW: u32 = 0xffff;
/// First flight that the window leaves room for, in segments (RFC 6928).
const INITIAL_SEGMENTS: u32 = 10;

/// Turns the SYN in `frame` into the SYN/ACK that answers it. Offers only what every real server
/// of the service is known to accept.
///
/// # Errors
/// The reason to drop it; the frame may have changed.
#[inline(always)]
pub fn answer<V: Family, F: Frame>(
    frame: &mut F,
    packet: &Packet,
    settings: &Settings,
    service: ServiceEntry,
    now: u64,
) -> Result<(), Reason> {
    let Ok(offered) = options::parse(frame, packet) else {
        return Err(Reason::SynMalformed);
    };
    let switches = settings.switches.load();
    let our_scale = settings.window_scale.load() as u8;
    let scaled = our_scale != NO_SCALE
        && offered.window_scale != NO_SCALE
        && !service.has(ServiceEntry::NO_WINDOW_SCALE);
    let mss = match offered.mss {
        Some(mss) => mss,
        None => V::DEFAULT_MSS,
    };
    let offer = Offer {
        mss_class: cookie::mss_class(V::MSS_CLASSES, mss),
        window_scale: if scaled { offered.window_scale } else { NO_SCALE },
        sack: offered.sack_permitted
            && switches & switch::SACK != 0
            && !service.has(ServiceEntry::NO_SACK),
    };
    let timestamps = match offered.timestamps {
        Some(theirs)
            if switches & switch::TIMESTAMP != 0 && !service.has(ServiceEntry::NO_TIMESTAMP) =>
        {
            Some(Timestamps {
                value: cookie::clock(settings, &packet.tuple, now),
                echo: theirs.value,
            })
        }
        _ => None,
    };
    let claim = Claim {
        client_isn: packet.tcp.seq,
        offer: offer.to_byte(),
        timestamps: timestamps.is_some(),
    };
    // As large a packet over either version.
    let ours = settings.init_mss.load().wrapping_sub((V::HEADER_LEN - ipv4::HEADER_LEN) as u32);
    let ours = if ours < V::DEFAULT_MSS as u32 { V::DEFAULT_MSS as u32 } else { ours };
    // What the client can take says nothing of what we can, but a path that is narrow one way
    // mostly is both ways (LVS does the same); no path is narrower than the default.
    let mss = if mss < V::DEFAULT_MSS { V::DEFAULT_MSS as u32 } else { mss as u32 };
    let mss = if mss < ours { mss } else { ours };
    // Its first segments must fit with the option that they get on the way (LVS:
    // `fullnat_mss_adjust_entry`).
    let mss = if service.has(ServiceEntry::TOA) { mss - V::TOA_LEN as u32 } else { mss };
    // The verifier would walk what follows once for each of the ways to get here.
    let mss = frame.opaque(mss as usize) as u32 & 0xffff;
    let segment = Segment {
        link: packet.link.reversed(),
        tuple: Tuple { source: packet.tuple.destination, destination: packet.tuple.source },
        seq: cookie::make(settings, &packet.tuple, claim),
        ack: SeqNumber(packet.tcp.seq.0).add(1),
        flags: Flags::SYN.with(Flags::ACK),
        window: window(mss, settings.early_data.load()),
        ttl: settings.ttl.load() as u8,
        syn: Some(SynOptions {
            mss: mss as u16,
            window_scale: if scaled { our_scale } else { NO_SCALE },
            sack_permitted: offer.sack,
        }),
        timestamps,
    };
    match segment::write_as::<V, F>(frame, &segment) {
        Some(()) => Ok(()),
        None => Err(Reason::SynResizeFailed),
    }
}

/// The window of a SYN/ACK: what the early-data store can hold (DESIGN, "Splice arithmetic").
#[inline(always)]
const fn window(mss: u32, early_data: u32) -> u16 {
    let flight = mss.wrapping_mul(INITIAL_SEGMENTS);
    let window = if flight < early_data { flight } else { early_data };
    if window < MAX_WINDOW { window as u16 } else { MAX_WINDOW as u16 }
}
