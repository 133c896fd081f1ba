package host

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// readEnvFile takes an empty pipe for one that was read before: a shell's <(command) gives its text once, and a new generation would
// be without all of it.
func readEnvFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(file)
	if err != nil || len(text) > 0 {
		return text, err
	}
	if info, err := file.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		return nil, fmt.Errorf("%s is a pipe that gives nothing, or nothing more (use a file: each upgrade reads it again)", path)
	}
	return text, nil
}

// parseEnvFile reads NAME=VALUE lines as systemd's EnvironmentFile has them:
// empty lines and those that begin with # or ; are skipped, a leading "export" is
// allowed, a value may be quoted, and nothing is expanded. Its errors name the
// line and never a value.
func parseEnvFile(text string) ([]string, error) {
	var env []string
	for number, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		entry, err := parseEnvLine(strings.TrimSpace(strings.TrimPrefix(line, "export ")))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number+1, err)
		}
		env = append(env, entry)
	}
	return env, nil
}

func parseEnvLine(line string) (string, error) {
	name, value, found := strings.Cut(line, "=")
	if !found || !isVariableName(name) {
		return "", fmt.Errorf("not of the form NAME=VALUE")
	}
	value, err := unquote(strings.TrimSpace(value))
	if err == nil && strings.ContainsRune(value, 0) {
		err = fmt.Errorf("the value contains a NUL byte")
	}
	return name + "=" + value, err
}

func isVariableName(name string) bool {
	for i, c := range name {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

func unquote(value string) (string, error) {
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return value, nil
	}
	quote, rest := value[0], value[1:]
	var plain strings.Builder
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == quote && i == len(rest)-1:
			return plain.String(), nil
		case c == quote:
			return "", fmt.Errorf("there is text after the closing quote")
		case c == '\\' && quote == '"' && i+1 < len(rest):
			i++
			plain.WriteByte(rest[i])
		default:
			plain.WriteByte(c)
		}
	}
	return "", fmt.Errorf("the quote is not closed")
}
