//! The terminal as a screen: taken at the beginning, given back at the end, whichever way that comes.

use std::io::{self, Write};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};

use super::frame::{FURNITURE, View};

/// Dropping it gives the terminal back.
pub(super) struct Screen(());

impl Screen {
    pub fn open() -> io::Result<Self> {
        enable_raw_mode()?;
        let screen = Self(());
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Pods that one screen shows.
    pub fn page(&self) -> io::Result<usize> {
        Ok(usize::from(size()?.1).saturating_sub(FURNITURE).max(1))
    }

    pub fn draw(&mut self, view: &mut View) -> io::Result<()> {
        let (width, height) = size()?;
        let mut out = io::stdout().lock();
        queue!(out, BeginSynchronizedUpdate)?;
        for (number, line) in view.lines(width.into(), height.into()).iter().enumerate() {
            let style = if number == 1 { Attribute::Reverse } else { Attribute::Reset };
            let row = u16::try_from(number).unwrap_or(u16::MAX);
            queue!(out, MoveTo(0, row), SetAttribute(style), Print(line))?;
            queue!(out, SetAttribute(Attribute::Reset), Clear(ClearType::UntilNewLine))?;
        }
        queue!(out, EndSynchronizedUpdate)?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to be told of a failure.
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}
