"""AIHub's data set 82, "한국인 감정인식을 위한 복합 영상", as it is downloaded: folders or the original ZIPs.

    092.…데이터/01.데이터/1.Training/원천데이터/[원천]EMOIMG_기쁨_TRAIN_01.zip    pictures
    092.…데이터/01.데이터/1.Training/라벨링데이터/[라벨]EMOIMG_기쁨_TRAIN.zip     a JSON list for each emotion

Modules, from the bottom up: `names` (fields of file names, Korean in every encoding), `annotations` (the JSON
lists), `labels` (three annotators and the uploader), `archives` (ZIPs, read with limits), `collection` (all
of a folder).

Importing this package costs nothing. None needs TensorFlow or torch.
"""
