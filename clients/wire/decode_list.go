package wire

import (
	"strconv"

	"github.com/go-faster/jx"
)

func number[T uint32 | uint64](f *fields, n int, name string, p *T) {
	if f.once(n, name) {
		v, err := whole[T](f.d)
		*p = v
		f.end(name, err)
	}
}

func optional[T uint32 | uint64](f *fields, n int, name string, p **T) {
	*p = new(T)
	if number(f, n, name, *p); f.err != nil {
		*p = nil
	}
}

// whole reads a number that has neither sign, fraction nor exponent and fits T.
func whole[T uint32 | uint64](d *jx.Decoder) (v T, err error) {
	text, err := d.Raw()
	if err != nil {
		return 0, err
	}
	for _, c := range text {
		digit := T(c - '0')
		if c < '0' || c > '9' || v > (^T(0)-digit)/10 {
			most := strconv.FormatUint(uint64(^T(0)), 10)
			return 0, &FieldError{Reason: "must be a whole number from 0 to " + most}
		}
		v = v*10 + digit
	}
	return v, nil
}

// list calls each for every element of an array.
func (f *fields) list(n int, name string, each func() error) {
	if !f.is(n, name, jx.Array, "must be an array") {
		return
	}
	it, err := f.d.ArrIter()
	for i := 0; err == nil && it.Next(); i++ {
		if err := each(); err != nil {
			element := fields{}
			element.end("["+strconv.Itoa(i)+"]", err)
			f.end(name, element.err)
			return
		}
	}
	if err == nil {
		err = it.Err()
	}
	f.err = err
}

func (f *fields) strings(n int, name string, p *[]string) {
	f.list(n, name, func() error {
		if f.d.Next() != jx.String {
			return &FieldError{Reason: "must be a string"}
		}
		s, err := f.d.Str()
		*p = add(*p, s)
		return err
	})
}

func (f *fields) numbers(n int, name string, p *[]uint64) {
	f.list(n, name, func() error {
		v, err := whole[uint64](f.d)
		if *p == nil {
			*p = make([]uint64, 0, 2) // ver: [term, version]
		}
		*p = append(*p, v)
		return err
	})
}

func messages[T any, P pointer[T]](f *fields, n int, name string, p *[]P) {
	f.list(n, name, func() error {
		m := P(new(T))
		*p = add(*p, m)
		return m.decodeJSON(f.d)
	})
}

// add appends with a first capacity that spares small lists their regrowth.
func add[T any](list []T, v T) []T {
	if list == nil {
		list = make([]T, 0, 8)
	}
	return append(list, v)
}

// devices reads {"mobile":"online"}; unknown classes and states are skipped.
func (f *fields) devices(n int, name string, p *[]*DeviceState) {
	if !f.is(n, name, jx.Object, "must be an object") {
		return
	}
	o := object(f.d)
	for o.next() {
		key := string(o.key())
		class := ParseDeviceClass(key)
		if class == 0 {
			o.skip()
			continue
		}
		word, ok := o.word(int(class), key)
		if state := ParseState(string(word)); ok && state != 0 {
			*p = add(*p, &DeviceState{Class: class, State: state})
		}
	}
	f.end(name, o.err)
}
