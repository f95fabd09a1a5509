package cluster

// Statuses of all replicas here, by group, at one moment. The loop answers it: a node whose disk hangs does not.
func (e *Engine) Statuses() (all map[uint32]Status, err error) {
	err = e.ask(func() error {
		all = make(map[uint32]Status, len(e.host.order))
		for _, g := range e.host.order {
			s, err := e.host.Status(g.id)
			if err != nil {
				return err
			}
			all[g.id] = s
		}
		return nil
	})
	return all, err
}
