//! `berth top`: what pods use, from CRI's own answers. What does not live here: what a line looks like (frame), and what
//! the numbers are made of (usage).

mod frame;
mod screen;
mod usage;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt;

use super::client::Client;
use super::print;
use crate::config::duration;
use crate::layout;
use frame::View;
use screen::Screen;
use usage::Usage;

/// A rate of processor time needs a span of time.
const SPAN: Duration = Duration::from_millis(1100);

/// `berth top`
#[derive(Args)]
pub(super) struct Top {
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", env = "BERTH_SOCKET", default_value = layout::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print one table and end; so it does where standard output is no terminal
    #[arg(long)]
    once: bool,
    /// What comes first
    #[arg(long, value_enum, default_value_t = Order::Cpu)]
    sort: Order,
    /// Time between two looks
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
    interval: Duration,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Order {
    /// The most processor time
    Cpu,
    /// The most memory
    Memory,
    /// The largest writable layers
    Disk,
    /// The most restarts
    Restarts,
    /// By namespace and name
    Name,
}

fn interval(text: &str) -> Result<Duration, String> {
    let parsed = duration::parse(text).filter(|interval| *interval >= Duration::from_millis(100));
    parsed.ok_or_else(|| format!("{text:?} is no duration of at least 100ms, such as 2s"))
}

impl Top {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut client = Client::connect(&self.socket).await?;
            if self.once || !std::io::stdout().is_terminal() {
                return print(&frame::table(&settled(&mut client).await?, self.sort));
            }
            ensure!(std::io::stdin().is_terminal(), "standard input is no terminal: use --once");
            self.live(&mut client).await
        })
    }

    async fn live(&self, client: &mut Client) -> anyhow::Result<()> {
        let mut view = View { usage: Usage::fetch(client).await?, order: self.sort, top: 0 };
        let mut screen = Screen::open()?;
        let mut events = EventStream::new();
        // The first rates come sooner.
        let mut next = tokio::time::Instant::now() + SPAN.min(self.interval);
        loop {
            screen.draw(&mut view)?;
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    view.usage = Usage::fetch(client).await?;
                    next = tokio::time::Instant::now() + self.interval;
                }
                event = events.next() => match event {
                    Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                        if !view.press(key, screen.page()?) {
                            return Ok(());
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(()),
                },
            }
        }
    }
}

/// With rates of processor time: where the daemon knows none yet, it is asked twice.
async fn settled(client: &mut Client) -> anyhow::Result<Usage> {
    let usage = Usage::fetch(client).await?;
    if usage.pods.iter().all(|pod| pod.nano_cores.is_some()) {
        return Ok(usage);
    }
    tokio::time::sleep(SPAN).await;
    Usage::fetch(client).await
}

impl View {
    /// False: that was the end.
    fn press(&mut self, key: KeyEvent, page: usize) -> bool {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Char('c') if ctrl => return false,
            KeyCode::Char('c') => self.sort(Order::Cpu),
            KeyCode::Char('m') => self.sort(Order::Memory),
            KeyCode::Char('d') => self.sort(Order::Disk),
            KeyCode::Char('r') => self.sort(Order::Restarts),
            KeyCode::Char('n') => self.sort(Order::Name),
            KeyCode::Down | KeyCode::Char('j') => self.top += 1,
            KeyCode::Up | KeyCode::Char('k') => self.top = self.top.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.top += page,
            KeyCode::PageUp => self.top = self.top.saturating_sub(page),
            KeyCode::Home | KeyCode::Char('g') => self.top = 0,
            KeyCode::End | KeyCode::Char('G') => self.top = usize::MAX,
            _ => {}
        }
        true
    }

    fn sort(&mut self, order: Order) {
        (self.order, self.top) = (order, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_scroll_and_end() {
        let mut view = View { usage: Usage::default(), order: Order::Cpu, top: 5 };
        let mut press = |code| view.press(KeyEvent::new(code, KeyModifiers::NONE), 10);
        assert!(press(KeyCode::Char('j')) && press(KeyCode::PageDown) && press(KeyCode::Char('k')));
        assert!(!press(KeyCode::Char('q')) && !press(KeyCode::Esc));
        assert_eq!(view.top, 15);
        assert!(!view.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), 10));
        assert!(view.press(KeyEvent::new(KeyCode::Char('m'), KeyModifiers::NONE), 10));
        assert_eq!((view.order, view.top), (Order::Memory, 0));
        assert!(interval("50ms").is_err() && interval("2s").is_ok() && interval("2").is_err());
    }
}
