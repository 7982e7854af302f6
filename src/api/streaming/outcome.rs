//! How a session ended, in the words of the error channel: a metav1.Status as JSON from the fourth version of the protocol
//! on, plain text before.

use serde_json::json;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With the process; its exit code.
    Exited(i32),
    /// Before there was one.
    Failed(String),
}

/// How a client wants it told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A metav1.Status; success is told, too.
    Status,
    /// Text; nothing at all is success.
    Text,
}

impl Outcome {
    /// What goes into the error channel.
    pub fn text(&self, format: Format) -> String {
        match format {
            Format::Status => self.status().to_string(),
            Format::Text => self.message().unwrap_or_default(),
        }
    }

    /// None for success.
    fn message(&self) -> Option<String> {
        match self {
            Self::Exited(0) => None,
            Self::Exited(code) => Some(format!("command terminated with exit code {code}")),
            Self::Failed(reason) => Some(reason.clone()),
        }
    }

    fn status(&self) -> serde_json::Value {
        let message = self.message();
        match self {
            Self::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(_) => json!({
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": "InternalError",
                "code": 500,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_cause_of_the_status() {
        let text = Outcome::Exited(3).text(Format::Status);
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        let success: serde_json::Value =
            serde_json::from_str(&Outcome::Exited(0).text(Format::Status)).unwrap();
        assert_eq!(success["status"], "Success");
    }

    #[test]
    fn before_the_fourth_version_silence_is_success() {
        assert_eq!(Outcome::Exited(0).text(Format::Text), "");
        assert_eq!(Outcome::Exited(3).text(Format::Text), "command terminated with exit code 3");
        assert_eq!(Outcome::Failed("no such file".into()).text(Format::Text), "no such file");
    }
}
