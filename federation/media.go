package federation

var mediaRoutes = []Route{}
