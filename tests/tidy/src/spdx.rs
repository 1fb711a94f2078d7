//! Licence expressions, as manifests write them: `MIT OR Apache-2.0`, `(A OR B) AND C`, `A WITH B`, and `A/B` of old.

/// Whether the expression can be satisfied with licences that `allowed` accepts. `A WITH B` is one licence.
/// An expression that cannot be read is not satisfied.
pub fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { tokens: &tokens, allowed };
    parser.any() == Some(true) && parser.tokens.is_empty()
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    allowed: &'a dyn Fn(&str) -> bool,
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let taken = self.tokens.first() == Some(&word);
        if taken {
            self.tokens = &self.tokens[1..];
        }
        taken
    }

    fn any(&mut self) -> Option<bool> {
        let mut result = self.all()?;
        while self.take("OR") {
            result |= self.all()?;
        }
        Some(result)
    }

    fn all(&mut self) -> Option<bool> {
        let mut result = self.one()?;
        while self.take("AND") {
            result &= self.one()?;
        }
        Some(result)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let inner = self.any()?;
            return self.take(")").then_some(inner);
        }
        let (name, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        if self.take("WITH") {
            let (exception, rest) = self.tokens.split_first()?;
            self.tokens = rest;
            return Some((self.allowed)(&format!("{name} WITH {exception}")));
        }
        Some((self.allowed)(name))
    }
}

#[cfg(test)]
mod tests {
    use super::satisfied;

    #[test]
    fn expressions_are_read_as_written() {
        let allowed = |name: &str| ["MIT", "ISC", "A WITH B"].contains(&name);
        for good in ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "(X OR MIT) AND ISC", "A WITH B OR X"] {
            assert!(satisfied(good, &allowed), "{good}");
        }
        for bad in ["X", "MIT AND X", "A WITH C", "A", "", "(MIT", "MIT MIT", "(X OR MIT) AND X"] {
            assert!(!satisfied(bad, &allowed), "{bad}");
        }
    }
}
