package chaos

func (r Report) page() ([]byte, error) { return nil, nil }
