//! The list of exceptions: each with a reason, each needed, each no larger than needed. So it only shrinks.

use super::Finding;

pub const LIST: &str = "xtask/tidy-exceptions.txt";

struct Exception {
    line: usize,
    path: String,
    rule: String,
    /// The measure it allows, for rules that measure.
    allows: Option<usize>,
    used: bool,
}

/// Takes the excepted off, and adds what is wrong with the list itself.
pub fn apply(list: &str, findings: Vec<Finding>) -> Vec<Finding> {
    let (mut exceptions, mut left) = parse(list);
    for finding in findings {
        let known =
            exceptions.iter_mut().find(|known| known.path == finding.path && known.rule == finding.rule);
        let Some(exception) = known else {
            left.push(finding);
            continue;
        };
        exception.used = true;
        match (finding.measure, exception.allows) {
            (Some(measure), Some(allows)) if measure > allows => left.push(finding),
            (Some(measure), Some(allows)) if measure < allows => {
                left.push(about_list(
                    exception.line,
                    format!("allows {allows}, and {measure} is enough now; lower it"),
                ));
            }
            (Some(_), None) => {
                left.push(about_list(exception.line, "does not say how much it allows".to_owned()))
            }
            (Some(_), Some(_)) | (None, _) => {}
        }
    }
    for unused in exceptions.iter().filter(|exception| !exception.used) {
        let what =
            format!("{} [{}] needs no exception any more; take the line out", unused.path, unused.rule);
        left.push(about_list(unused.line, what));
    }
    left
}

fn parse(list: &str) -> (Vec<Exception>, Vec<Finding>) {
    let mut exceptions = Vec::new();
    let mut wrong = Vec::new();
    for (index, text) in list.lines().enumerate() {
        let line = index + 1;
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = text.split('|').map(str::trim).collect();
        let [path, rule, reason] = columns[..] else {
            wrong.push(about_list(line, "is not `path | rule | reason`".to_owned()));
            continue;
        };
        if reason.is_empty() {
            wrong.push(about_list(line, "has no reason".to_owned()));
        }
        let (rule, allows) = match rule.rsplit_once(' ').map(|(rule, number)| (rule, number.parse::<usize>()))
        {
            Some((rule, Ok(number))) => (rule, Some(number)),
            Some((_, Err(_))) | None => (rule, None),
        };
        exceptions.push(Exception {
            line,
            path: path.to_owned(),
            rule: rule.to_owned(),
            allows,
            used: false,
        });
    }
    (exceptions, wrong)
}

fn about_list(line: usize, what: String) -> Finding {
    Finding { path: LIST.to_owned(), line, rule: "exceptions".to_owned(), measure: None, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(rule: &str, measure: Option<usize>) -> Finding {
        Finding {
            path: "a.rs".to_owned(),
            line: 7,
            rule: rule.to_owned(),
            measure,
            what: "is wrong".to_owned(),
        }
    }

    fn check(list: &str, findings: Vec<Finding>, expected: &[&str]) {
        let told: Vec<String> = apply(list, findings).iter().map(|left| left.what.clone()).collect();
        assert_eq!(told, expected, "{list}");
    }

    #[test]
    fn an_exception_covers_its_own_path_and_rule() {
        check("a.rs | sleep | the poll of a program we do not own", vec![finding("sleep", None)], &[]);
        check("# nothing\n", vec![finding("sleep", None)], &["is wrong"]);
        check(
            "b.rs | sleep | because",
            vec![finding("sleep", None)],
            &["is wrong", "b.rs [sleep] needs no exception any more; take the line out"],
        );
    }

    #[test]
    fn a_measured_exception_only_shrinks() {
        let list = "a.rs | function run 84 | one table read from top to bottom";
        check(list, vec![finding("function run", Some(84))], &[]);
        check(list, vec![finding("function run", Some(85))], &["is wrong"]);
        check(list, vec![finding("function run", Some(80))], &["allows 84, and 80 is enough now; lower it"]);
        check(
            "a.rs | function run | no number",
            vec![finding("function run", Some(80))],
            &["does not say how much it allows"],
        );
    }

    #[test]
    fn a_line_without_a_reason_is_a_finding() {
        check("a.rs | sleep |", vec![finding("sleep", None)], &["has no reason"]);
        check("a.rs sleep", vec![], &["is not `path | rule | reason`"]);
    }
}
