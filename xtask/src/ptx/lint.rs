//! What must not stand in the PTX: anything whose bits depend on the GPU, on the assembler or on chance. Reads text.

/// What the driver of CUDA 13.0 takes, and the oldest GPU.
const VERSION: &str = ".version 9.0";
const TARGET: &str = ".target sm_80";

/// Results of these are approximations, and differ between GPUs.
const APPROXIMATIONS: &[&str] = &["ex2", "lg2", "sin", "cos", "tanh", "rcp", "rsqrt"];
/// Must name their rounding: the assembler may contract an `add` or a `mul` that does not.
const ROUNDED: &[&str] = &["add", "sub", "mul", "fma", "div", "sqrt"];
/// The one tensor core operation: exact integers.
const MMA: &str = "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32";

/// One line a finding: line, instruction, why.
pub fn findings(ptx: &str) -> Vec<String> {
    let mut found = Vec::new();
    for directive in [VERSION, TARGET] {
        if !ptx.lines().any(|line| line == directive) {
            found.push(format!("there is no line `{directive}`"));
        }
    }
    for (index, line) in ptx.lines().enumerate() {
        if let Some(why) = opcode(line).and_then(objection) {
            found.push(format!("line {}: `{}` {why}", index + 1, line.trim()));
        }
    }
    found
}

/// The instruction's name with its suffixes; None for labels, directives, comments.
fn opcode(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let first = words.next()?;
    let word = if first.starts_with('@') { words.next()? } else { first };
    let name = word.trim_end_matches(';').trim_start_matches('{');
    (name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with(':')).then_some(name)
}

fn objection(opcode: &str) -> Option<&'static str> {
    let mut parts = opcode.split('.');
    let name = parts.next()?;
    let suffixes: Vec<&str> = parts.collect();
    let has = |suffix: &str| suffixes.contains(&suffix);
    let is_float = suffixes.iter().any(|s| s.starts_with('f') && s[1..].parse::<u32>().is_ok());
    if has("approx") || has("full") || APPROXIMATIONS.contains(&name) {
        return Some("is an approximation");
    }
    if has("ftz") {
        return Some("flushes subnormals");
    }
    if ["mma", "wmma", "wgmma"].contains(&name) && opcode != MMA {
        return Some("is not the integer tensor core operation");
    }
    if ["atom", "red"].contains(&name) && is_float {
        return Some("adds floats in the order of chance");
    }
    if has("f64") || suffixes.iter().any(|s| s.starts_with("bf16") || *s == "tf32") {
        return Some("is no f32 operation");
    }
    if name == "mad" && is_float {
        return Some("leaves its rounding open");
    }
    if name != "cvt" && name != "mov" && (has("f16") || has("f16x2")) {
        return Some("computes in f16");
    }
    if ROUNDED.contains(&name) && is_float && !has("rn") {
        return Some("does not say how it rounds");
    }
    let exact = opcode == "cvt.f32.f16";
    if name == "cvt" && is_float && !exact && !has("rn") && !has("rni") {
        return Some("does not say how it rounds");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(line: &str) -> bool {
        opcode(line).and_then(objection).is_some()
    }

    #[test]
    fn what_may_stand_and_what_may_not() {
        for line in [
            "\tadd.rn.f32 \t%f1, %f2, %f3;",
            "\t@%p1 fma.rn.f32 %f1, %f2, %f3, %f4;",
            "\tadd.s32 %r1, %r2, 1;",
            "\tcvt.f32.f16 %f1, %rs1;",
            "\tcvt.rn.f16.f32 %rs1, %f1;",
            "\tcvt.rni.s32.f32 %r1, %f1;",
            "\tcvt.u64.u32 %rd1, %r1;",
            "\tatom.shared.add.u64 %rd1, [%rd2], %rd3;",
            "\tmma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r1}, {%r2}, {%r3}, {%r4};",
            "\tst.global.f32 [%rd1], %f1;",
            "\tneg.f32 %f1, %f2;",
            "$L__BB0_1:",
            "// a comment with ex2.approx",
            ".visible .entry sample(",
        ] {
            assert!(!objects(line), "{line}");
        }
        for line in [
            "\tadd.f32 %f1, %f2, %f3;",
            "\tmul.f32 %f1, %f2, %f3;",
            "\tmul.rn.ftz.f32 %f1, %f2, %f3;",
            "\tfma.rz.f32 %f1, %f2, %f3, %f4;",
            "\tmad.f32 %f1, %f2, %f3, %f4;",
            "\t@!%p1 ex2.approx.f32 %f1, %f2;",
            "\tdiv.full.f32 %f1, %f2, %f3;",
            "\tsqrt.approx.f32 %f1, %f2;",
            "\tred.global.add.f32 [%rd1], %f1;",
            "\tatom.global.add.f32 %f1, [%rd1], %f2;",
            "\tmma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f2};",
            "\tadd.rn.f64 %fd1, %fd2, %fd3;",
            "\tadd.rn.f16 %h1, %h2, %h3;",
            "\tcvt.f32.s32 %f1, %r1;",
            "\tcvt.rzi.s32.f32 %r1, %f1;",
        ] {
            assert!(objects(line), "{line}");
        }
    }

    #[test]
    fn another_version_or_target_is_a_finding() {
        assert_eq!(findings(".version 9.0\n.target sm_80\n"), Vec::<String>::new());
        assert_eq!(findings(".version 9.5\n.target sm_90a\n").len(), 2);
    }
}
