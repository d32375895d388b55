package issuer

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that JSON spells as Caddy does: a number of
// nanoseconds, or a text like "90s", "1h30m" or "7d" (a day is 24 hours). It is
// written as a number.
type Duration time.Duration

// UnmarshalJSON implements [json.Unmarshaler].
func (d *Duration) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '"' {
		return json.Unmarshal(b, (*int64)(d))
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	parsed, err := parseDuration(text)
	if err != nil {
		return err
	}
	*d = Duration(parsed)
	return nil
}

// String returns the duration as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

func parseDuration(text string) (time.Duration, error) {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseFloat(days, 64)
	if err != nil || !(-36500 <= n && n <= 36500) { // not NaN either
		return 0, fmt.Errorf("parsing duration %q: the days before \"d\" are not a number", text)
	}
	total := time.Duration(n * float64(24*time.Hour))
	if rest == "" {
		return total, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil {
		return 0, err
	}
	if n < 0 {
		more = -more
	}
	return total + more, nil
}

// Names is a list that JSON may also spell as a single text.
type Names []string

// UnmarshalJSON implements [json.Unmarshaler].
func (n *Names) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var name string
		if err := json.Unmarshal(b, &name); err != nil {
			return err
		}
		*n = Names{name}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(n))
}
