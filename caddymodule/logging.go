package caddymodule

import (
	"context"
	"log/slog"

	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"

	"github.com/caddyserver/caddy/v2"
)

// processLogger returns a logger for objects that outlive a config: it resolves
// Caddy's default logger at each record, since the one that was current when the
// object was made is closed by the next reload.
func processLogger(name string) *slog.Logger {
	return slog.New(processHandler{name: "token_revocation." + name})
}

// processHandler is a slog.Handler over whatever Caddy's default logger is at
// the time. It keeps attributes and groups as steps to replay on it.
type processHandler struct {
	name  string
	steps []func(slog.Handler) slog.Handler
}

func (h processHandler) current() slog.Handler {
	var handler slog.Handler = zapslog.NewHandler(
		caddy.Log().Core(),
		zapslog.WithName(h.name),
		zapslog.AddStacktraceAt(slog.Level(127)), // none: an error here names its cause
	)
	for _, step := range h.steps {
		handler = step(handler)
	}
	return handler
}

func (h processHandler) Enabled(_ context.Context, level slog.Level) bool {
	return caddy.Log().Core().Enabled(zapLevel(level))
}

func (h processHandler) Handle(ctx context.Context, record slog.Record) error {
	return h.current().Handle(ctx, record)
}

func (h processHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(func(next slog.Handler) slog.Handler { return next.WithAttrs(attrs) })
}

func (h processHandler) WithGroup(name string) slog.Handler {
	return h.with(func(next slog.Handler) slog.Handler { return next.WithGroup(name) })
}

func (h processHandler) with(step func(slog.Handler) slog.Handler) slog.Handler {
	steps := make([]func(slog.Handler) slog.Handler, len(h.steps), len(h.steps)+1)
	copy(steps, h.steps)
	return processHandler{name: h.name, steps: append(steps, step)}
}

func zapLevel(level slog.Level) zapcore.Level {
	switch {
	case level >= slog.LevelError:
		return zapcore.ErrorLevel
	case level >= slog.LevelWarn:
		return zapcore.WarnLevel
	case level >= slog.LevelInfo:
		return zapcore.InfoLevel
	default:
		return zapcore.DebugLevel
	}
}

var _ slog.Handler = processHandler{}
