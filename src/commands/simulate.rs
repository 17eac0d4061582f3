//! `counterfoil simulate`: what would become of a network, before its rules are published.

use crate::output::Output;
use anyhow::{Context, Result};
use economy::{Load, preset_file, shipped, simulate};
use std::path::PathBuf;
use std::process::ExitCode;

/// See [`super::Command::Simulate`]. Example: counterfoil simulate --preset circular --days 60 --svg earnings.svg
#[derive(clap::Args)]
pub struct Simulate {
    /// A preset that ships, or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "circular")]
    preset: String,
    /// Virtual days, 1 to 730.
    #[arg(long, value_name = "N", default_value_t = 60)]
    days: u32,
    /// TOML: what is asked of the network and who serves it (examples/load.toml has every field).
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Draw what each strategy has, day by day.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Simulate {
    /// Runs it.
    pub fn run(self, output: Output) -> Result<ExitCode> {
        let (file, text) = match shipped(&self.preset) {
            Some(text) => (format!("presets/{}.toml", self.preset), text.to_owned()),
            None => {
                (self.preset.clone(), std::fs::read_to_string(&self.preset).with_context(|| self.unknown())?)
            }
        };
        let preset = preset_file::read(&file, &text)?;
        let load = match &self.load {
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
                toml::from_str(&text).with_context(|| path.display().to_string())?
            }
            None => Load::default(),
        };
        let report = simulate(&preset, &load, self.days)?;
        if let Some(path) = &self.svg {
            let svg = economy::plot::earnings(&report);
            std::fs::write(path, svg).with_context(|| path.display().to_string())?;
        }
        output.result(&report.text(), &serde_json::to_value(&report)?);
        Ok(ExitCode::SUCCESS)
    }

    fn unknown(&self) -> String {
        let names: Vec<&str> = preset_file::SHIPPED.iter().map(|(name, _)| *name).collect();
        format!("{} is neither a file nor one of {}", self.preset, names.join(", "))
    }
}
