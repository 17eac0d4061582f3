//! Progress for people: a bar a download on a terminal, one plain line a tool anywhere. All on stderr.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

pub struct Progress {
    bars: MultiProgress,
}

impl Progress {
    /// Indicatif hides itself when stderr is not a terminal.
    pub fn new() -> Progress {
        Progress { bars: MultiProgress::new() }
    }

    /// One line that stays.
    pub fn line(&self, text: &str) {
        self.bars.suspend(|| eprintln!("tools: {text}"));
    }

    /// A bar for one download; it goes when dropped.
    pub fn download(&self, name: &str, package_bytes: u64) -> Download {
        let style = ProgressStyle::with_template(
            "{spinner} {prefix:<16} {bar:30} {bytes:>10}/{total_bytes:<10} {elapsed:>4}  {msg}",
        )
        .expect("the template is a constant");
        let bar = self.bars.add(ProgressBar::new(package_bytes).with_style(style));
        bar.set_prefix(name.to_owned());
        bar.set_message("downloading");
        bar.enable_steady_tick(Duration::from_millis(100));
        Download { bar }
    }
}

pub struct Download {
    bar: ProgressBar,
}

impl Download {
    pub fn reached(&self, bytes: u64) {
        // The scratch folder holds a second copy for a moment while a package is moved.
        self.bar.set_position(bytes.min(self.bar.length().unwrap_or(bytes)));
    }

    pub fn phase(&self, what: &'static str) {
        self.bar.set_message(what);
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
