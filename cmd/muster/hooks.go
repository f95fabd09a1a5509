package main

import (
	"context"
	"errors"
	"fmt"

	"muster/actors"
	"muster/cluster"
	"muster/edge/api"
	"muster/edge/hooks"
)

// startAudience makes the client of the webhook that knows the contacts, if there is one.
func (s *server) startAudience() (err error) {
	if s.cfg.AudienceHook == "" {
		return nil
	}
	s.audience, err = hooks.NewAudience(hooks.AudienceConfig{
		URL: s.cfg.AudienceHook, AllowHTTP: s.cfg.WebhookAllowHTTP, Secrets: s.cfg.WebhookSecret,
	})
	if err != nil {
		return fmt.Errorf("audience-hook: %w", err)
	}
	return nil
}

// startWebhook makes what sends the events, if there is a webhook. It begins with the
// shards that open.
func (s *server) startWebhook(core *actors.Node) (err error) {
	if s.cfg.Webhook == "" {
		return nil
	}
	s.webhook, err = hooks.New(hooks.Config{
		URL: s.cfg.Webhook, AllowHTTP: s.cfg.WebhookAllowHTTP, Secrets: s.cfg.WebhookSecret, Source: core,
		Registerer: s.registry, Log: s.log,
	})
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	return nil
}

// news tells the webhook of new events.
func (s *server) news(shard uint32) {
	if s.webhook != nil {
		s.webhook.Notify(shard)
	}
}

// replayer is the webhook as the API sees it: nil without one.
func (s *server) replayer() api.Replayer {
	if s.webhook == nil {
		return nil
	}
	if s.members == nil {
		return s.webhook
	}
	return everywhere{s}
}

// everywhere replays shards that other cores lead too.
type everywhere struct{ s *server }

func (e everywhere) Replay(ctx context.Context, shard uint32, seq uint64) error {
	err := e.s.webhook.Replay(ctx, shard, seq)
	if errors.Is(err, hooks.ErrNotHere) {
		err = e.s.members.Replay(ctx, shard, seq)
	}
	return err
}

// replayHere is what another core asks for.
func (s *server) replayHere(ctx context.Context, shard uint32, seq uint64) error {
	if s.webhook == nil {
		return errors.New("this core has no webhook")
	}
	return s.webhook.Replay(ctx, shard, seq)
}

// leading is who is told what this node leads: the core, and after it the webhook.
func (s *server) leading() cluster.Leading {
	if s.webhook == nil {
		return s.core
	}
	return leaders{s.core, s.webhook}
}

type leaders struct {
	*actors.Node
	webhook *hooks.Dispatcher
}

func (l leaders) Opened(shard uint32, term, generation uint64, at int64) {
	l.Node.Opened(shard, term, generation, at)
	l.webhook.Opened(shard, term, generation, at)
}

func (l leaders) Closed(shard uint32, term uint64) {
	l.webhook.Closed(shard, term)
	l.Node.Closed(shard, term)
}
