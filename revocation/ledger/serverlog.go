package ledger

import (
	"fmt"
	"log/slog"
)

// serverLog takes what the embedded server has to say. Its notices are about
// itself as a server of its own and go to the debug level.
type serverLog struct {
	log  *slog.Logger
	hear func(text string) // each error
}

func (l serverLog) Noticef(format string, v ...any) { l.log.Debug(serverMessage, said(format, v)) }
func (l serverLog) Warnf(format string, v ...any)   { l.log.Warn(serverMessage, said(format, v)) }
func (l serverLog) Errorf(format string, v ...any) {
	text := said(format, v)
	l.log.Error(serverMessage, text)
	l.hear(text.Value.String())
}

// Fatalf must not end the process, as the server's own logger does.
func (l serverLog) Fatalf(format string, v ...any) { l.log.Error(serverMessage, said(format, v)) }
func (serverLog) Debugf(string, ...any)            {}
func (serverLog) Tracef(string, ...any)            {}

const serverMessage = "embedded nats server"

func said(format string, v []any) slog.Attr {
	return slog.String("text", fmt.Sprintf(format, v...))
}
