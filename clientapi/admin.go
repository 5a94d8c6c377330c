package clientapi

var adminRoutes = []Route{}
