"""Git repositories that tests make."""

import subprocess


def git(*arguments: str) -> str:
    """Run git as somebody in the working directory; what it prints."""
    named = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "gc.auto=0"]
    done = subprocess.run(["git", *named, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit_all(message: str = "all") -> str:
    """Commit everything here, in a repository made when missing; the commit."""
    git("init", "--quiet", "--initial-branch=main")
    git("add", "--all")
    git("commit", "--quiet", "--allow-empty", f"--message={message}")
    return git("rev-parse", "HEAD")
