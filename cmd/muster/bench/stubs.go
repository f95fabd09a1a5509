//go:build linux

package bench

func (r *runner) idle() error    { return nil }
func (r *runner) connect() error { return nil }
func (r *runner) churn() error   { return nil }
func (r *runner) slow() error    { return nil }
func (r *runner) growth() error  { return nil }
