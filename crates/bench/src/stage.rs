//! The real media thread in this process, with a room and signalling by function call.

use crate::Failure;
use crate::crowd::Line;
use crate::hall::{add_track, join, news, room, sfu_config};
use crate::participant::News;
use crate::payload::Medium;
use fanlight_base::PeerKey;
use fanlight_sfu::Sfu;
use fanlight_sfu::input::{Command, Request};
use fanlight_shard::{Clock, Message, Requested, Shard, ShardHandle, SignalSink, Sinks, bind_udp};
use fanlight_transport::negotiate::RemoteDescription;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// The thread's name, by which its processor time is found.
pub(crate) const THREAD: &str = "bench-shard";

/// A media thread with one room.
pub(crate) struct Stage {
    pub(crate) shard: Shard,
    lines: Vec<Option<(Sender<News>, Receiver<News>)>>,
}

/// A participant's way to the media thread.
pub(crate) struct Direct {
    peer: PeerKey,
    shard: ShardHandle,
    news: Receiver<News>,
    offers: u32,
}

impl Stage {
    /// A thread on a free port of loopback, with room for so many participants.
    pub(crate) fn start(participants: usize) -> Result<Self, Failure> {
        let anchor = Instant::now();
        let endpoint = bind_udp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "rtc.udp_port")?;
        let sfu = Sfu::new(sfu_config(anchor, endpoint.bound)?);
        let lines = (0..participants).map(|_| Some(channel())).collect();
        let sinks = Sinks { control: Box::new(|_| Ok(())), event: Box::new(|_| true), metrics: None };
        let shard = Shard::start(THREAD.to_owned(), sfu, Clock::new(anchor), vec![endpoint], None, sinks)?;
        shard.handle.send(Message::Command(Command::CreateRoom(Box::new(room()))))?;
        Ok(Self { shard, lines })
    }

    /// Lets participant `number` in.
    pub(crate) fn join(&mut self, number: usize, subscribes: bool) -> Result<Direct, Failure> {
        let (sender, line) =
            self.lines.get_mut(number).and_then(Option::take).ok_or("no such participant")?;
        let shard = self.shard.handle.clone();
        let signals = SignalSink::new(move |signal| sender.send(news(signal)).is_ok());
        shard.send(Message::Join { join: Box::new(join(number, subscribes)), signals })?;
        Ok(Direct { peer: PeerKey(number as u64), shard, news: line, offers: 0 })
    }
}

impl Direct {
    fn request(&self, request: Request) -> Result<(), Failure> {
        Ok(self.shard.request(Requested { peer: self.peer, request, credit: Box::new(()) })?)
    }
}

impl Line for Direct {
    fn receive(&mut self) -> Result<Option<News>, Failure> {
        Ok(self.news.try_recv().ok())
    }

    fn answer(&mut self, id: u32, sdp: String) -> Result<(), Failure> {
        let sdp = Box::new(RemoteDescription::parse(&sdp)?);
        self.request(Request::Answer { id, sdp })
    }

    fn offer(&mut self, sdp: String) -> Result<(), Failure> {
        self.offers += 1;
        let sdp = Box::new(RemoteDescription::parse(&sdp)?);
        self.request(Request::Offer { id: self.offers, sdp })
    }

    fn add_track(&mut self, cid: &str, medium: Medium) -> Result<(), Failure> {
        self.request(Request::AddTrack(Box::new(add_track(cid.to_owned(), medium))))
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}
